"""Decodes DICOM files and reads their tags."""
