"""A client of DICOMweb archives: QIDO-RS, WADO-RS and STOW-RS."""
