"""Renders the finding of a study as a DICOM structured report and as a FHIR report."""
