"""Tests of `training/evaluate`."""
