"""Measures a checkpoint on a split of a dataset."""
