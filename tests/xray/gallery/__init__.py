"""Tests of `xray/gallery`."""
