"""The picture of a study's findings, as a DICOM Secondary Capture."""
