"""Renders the finding of a study as a DICOM Secondary Capture."""
