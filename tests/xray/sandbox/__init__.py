"""Tests of `xray/sandbox`."""
