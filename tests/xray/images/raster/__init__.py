"""Tests of `xray/images/raster`."""
