"""Decodes DICOM files and reads their headers."""
