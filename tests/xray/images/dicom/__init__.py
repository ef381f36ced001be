"""Tests of `xray/images/dicom`."""
