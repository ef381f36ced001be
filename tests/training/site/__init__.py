"""Tests of `training/site`."""
