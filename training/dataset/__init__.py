"""Reads a training set: its images, annotations, sampling and augmentation."""
