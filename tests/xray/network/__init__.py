"""Tests of `xray/network`."""
