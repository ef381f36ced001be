"""Tests of `xray/engines`."""
