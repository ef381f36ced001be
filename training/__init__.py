"""Trains a network on a dataset in MURA layout, and measures it."""
