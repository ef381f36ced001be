"""What an archive answers in DICOM JSON goes in, references and refusals without anything of the patient come out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydicom import Dataset

from pacs.errors import ArchiveRefusedError
from xray.dicom_tags import UID

Match = Mapping[str, Any]
"""One result of a search: PS3.18 F.2, by tag."""
STUDY, SERIES, INSTANCE, SOP_CLASS = "0020000D", "0020000E", "00080018", "00080016"
MODALITY, MODALITIES, DATE, TIME = "00080060", "00080061", "00080020", "00080030"


@dataclass(frozen=True)
class StudyReference:
    """A study as a search finds it.

    Attributes:
        modalities: of its series, where the archive says so, else empty.
        date: YYYYMMDD, or empty.
        time: HHMMSS and maybe a fraction, or empty.
    """

    study_uid: str
    modalities: tuple[str, ...]
    date: str
    time: str

    @classmethod
    def of(cls, match: Match) -> Self:
        return cls(uid_in(match, STUDY), texts_in(match, MODALITIES), text_in(match, DATE), text_in(match, TIME))


@dataclass(frozen=True)
class SeriesReference:
    """A series; its modality is empty where the archive does not say."""

    study_uid: str
    series_uid: str
    modality: str


@dataclass(frozen=True)
class InstanceReference:
    """An instance, with the modality of its series."""

    study_uid: str
    series_uid: str
    instance_uid: str
    sop_class_uid: str
    modality: str


def require_uid(text: str) -> None:
    """Raises ArchiveRefusedError for what no archive can have; the text itself may be anything and is left out."""
    if UID.fullmatch(text) is None:
        raise ArchiveRefusedError("What was given as the UID of a study is none.")


def uid_in(match: Match, tag: str) -> str:
    """Raises ValueError where it is missing or none."""
    value = text_in(match, tag)
    if UID.fullmatch(value) is None:
        raise ValueError(f"no UID in ({tag[:4]},{tag[4:]})")
    return value


def text_in(match: Match, tag: str) -> str:
    return next(iter(texts_in(match, tag)), "")


def texts_in(match: Match, tag: str) -> tuple[str, ...]:
    return tuple(str(value) for value in match.get(tag, {}).get("Value", ()) if value is not None)


def reply_of(body: bytes) -> Dataset:
    """The data set of a STOW-RS reply; an empty one where the body is something else, such as a gateway's page."""
    try:
        return Dataset.from_json(body.decode())
    except (AttributeError, KeyError, TypeError, ValueError):
        return Dataset()


def refusals_in(reply: Dataset) -> list[str]:
    """Each instance that a STOW-RS reply says was not stored, with its reason code of PS3.18 I.2.2.

    A reply of success may hold an empty sequence of them.
    """
    return [
        f"{item.get('ReferencedSOPInstanceUID', 'an instance')} (reason {_code(item.get('FailureReason'))})"
        for item in reply.get("FailedSOPSequence") or ()
    ]


def _code(reason: object) -> str:
    return f"0x{reason:04X}" if isinstance(reason, int) else "not given"
