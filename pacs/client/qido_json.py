"""What an archive answers in DICOM JSON goes in, references and refusals without anything of the patient come out."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pacs.errors import ArchiveRefusedError
from xray.images.dicom.object_kind import OTHER_MODALITIES, is_radiograph

Match = Mapping[str, Any]
"""One result of a search: PS3.18 F.2, by tag."""
STUDY, SERIES, INSTANCE, SOP_CLASS = "0020000D", "0020000E", "00080018", "00080016"
MODALITY, MODALITIES, DATE, TIME = "00080060", "00080061", "00080020", "00080030"
PATIENT_ID = "00100020"
FAILED, FAILED_INSTANCE, FAILURE_REASON = "00081198", "00081155", "00081197"
DUPLICATE = 0x0111
UID = re.compile(r"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)*")
"""Stricter than what files are read with: a name such as `..` would change the path of a request."""


class AnswerError(ValueError):
    """What an archive answered cannot be used; the message holds nothing of the answer."""


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

    @property
    def may_have_radiographs(self) -> bool:
        return self.modality not in OTHER_MODALITIES


@dataclass(frozen=True)
class InstanceReference:
    """An instance, with the modality of its series; its SOP class is empty where the archive does not say."""

    study_uid: str
    series_uid: str
    instance_uid: str
    sop_class_uid: str
    modality: str

    @property
    def may_be_radiograph(self) -> bool:
        """Whether to fetch it. Without a SOP class only the file itself can tell."""
        return not self.sop_class_uid or is_radiograph(self.modality, self.sop_class_uid)


def require_uid(text: str) -> None:
    """Raises ArchiveRefusedError for what no archive can have; the text itself may be anything and is left out."""
    if UID.fullmatch(text) is None:
        raise ArchiveRefusedError("What was given as the UID of a study is not a DICOM UID.")


def matches_in(answer: object) -> Sequence[Match]:
    """The matches of a search. Raises AnswerError for other JSON."""
    if not isinstance(answer, list) or not all(isinstance(match, dict) for match in answer):
        raise AnswerError("its answer to a search is JSON, but not a list of DICOM data sets.")
    return answer


def uid_in(match: Match, tag: str) -> str:
    """Raises AnswerError where it is missing or not a UID."""
    value = text_in(match, tag).strip(" \0")
    if UID.fullmatch(value) is None:
        raise AnswerError(f"a match of its search has no UID in ({tag[:4]},{tag[4:]}).")
    return value


def has_uid(match: Match, tag: str) -> bool:
    return UID.fullmatch(text_in(match, tag).strip(" \0")) is not None


def text_in(match: Match, tag: str) -> str:
    return next(iter(texts_in(match, tag)), "")


def texts_in(match: Match, tag: str) -> tuple[str, ...]:
    return tuple(str(value) for value in _values(match, tag) if value is not None)


def _values(match: object, tag: str) -> list[object]:
    """Of an element that may be missing, empty or no element at all."""
    element = match.get(tag) if isinstance(match, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


@dataclass(frozen=True)
class Failure:
    """An instance that a STOW-RS reply says was not stored.

    Attributes:
        instance: its UID, or "an instance".
        reason: a code of PS3.18 I.2.2; None where the reply has none.
    """

    instance: str
    reason: int | None

    @property
    def is_duplicate(self) -> bool:
        """The archive says that it has the instance already."""
        return self.reason == DUPLICATE

    def __str__(self) -> str:
        return f"{self.instance} (reason {'not given' if self.reason is None else f'0x{self.reason:04X}'})"


def failures_in(body: bytes) -> list[Failure]:
    """What a STOW-RS reply says was not stored; a reply of success may hold an empty sequence of it.

    In a body that is no DICOM JSON, such as a gateway's page, nothing is found.
    """
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):
        return []
    items = [item for item in _values(reply, FAILED) if isinstance(item, dict)]
    return [
        Failure(uid_in(item, FAILED_INSTANCE) if has_uid(item, FAILED_INSTANCE) else "an instance", _reason(item))
        for item in items
    ]


def _reason(item: Match) -> int | None:
    code = next(iter(_values(item, FAILURE_REASON)), None)
    return code if isinstance(code, int) and 0 <= code <= 0xFFFF else None
