"""Tests of `xray/mura`."""
