"""Tests of `training/fit`."""
