"""Tests of `xray/images`."""
