"""The results of a study for an archive: their content, identity and DICOM encoding."""
