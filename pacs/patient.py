"""The header of a radiograph in, its patient and its study as attributes of a result out."""

import warnings
from copy import deepcopy

from pydicom import Dataset, config

REQUIRED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Of type 2: a result has them, empty where the radiograph has none."""
OPTIONAL = (
    "SpecificCharacterSet",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "PatientAge",
    "StudyDescription",
    "IssuerOfAccessionNumberSequence",
)
"""By these, too, an archive files or shows an object; the character set is that of the names."""


def add_patient_and_study(result: Dataset, header: Dataset) -> None:
    """Make them those of the radiograph, as they are written there, be they valid or not: corrected, they would file
    the result under another patient.
    """
    copy_attributes(result, header, REQUIRED + OPTIONAL)
    for keyword in REQUIRED:
        if keyword not in result:
            setattr(result, keyword, None)


def copy_attributes(result: Dataset, header: Dataset, keywords: tuple[str, ...]) -> None:
    """Those that the header has; a damaged one counts as missing."""
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")  # they would repeat the patient's values
        for keyword in keywords:
            if keyword in result:
                delattr(result, keyword)
            try:
                element = header[keyword]
            except Exception:  # pydicom parses it only now, and reports damage as almost any type
                continue
            result.add(deepcopy(element))
