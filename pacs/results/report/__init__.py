"""The report of a study's findings, as DICOM SR and as FHIR."""
