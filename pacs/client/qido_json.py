"""Parses an archive's DICOM JSON into references and failures without patient data."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pacs.errors import ArchiveRefusedError
from xray.images.dicom.object_kind import OTHER_MODALITIES, is_radiograph

Match = Mapping[str, Any]
"""One match of a search: a data set, keyed by tag (PS3.18 F.2)."""
STUDY, SERIES, INSTANCE, SOP_CLASS = "0020000D", "0020000E", "00080018", "00080016"
MODALITY, MODALITIES, DATE, TIME = "00080060", "00080061", "00080020", "00080030"
PATIENT_ID = "00100020"
FAILED, FAILED_INSTANCE, FAILURE_REASON = "00081198", "00081155", "00081197"
DUPLICATE = 0x0111
"""Failure reason "duplicate SOP instance"."""
UID = re.compile(r"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)*")
"""A valid UID. Stricter than for UIDs in files, because a text such as `..` would change the path of a request."""


class MalformedResponseError(ValueError):
    """QIDO-RS JSON, or another response of an archive, cannot be parsed; the message repeats nothing of it."""


@dataclass(frozen=True)
class StudyReference:
    """A study that a QIDO-RS search found.

    Attributes:
        modalities: modalities of its series; empty if the archive does not report them.
        date: YYYYMMDD, or empty.
        time: HHMMSS with an optional fraction, or empty.
    """

    study_uid: str
    modalities: tuple[str, ...]
    date: str
    time: str

    @classmethod
    def from_match(cls, match: Match) -> Self:
        """Parse a study in the JSON of a QIDO-RS search. Raises MalformedResponseError if it has no UID."""
        return cls(uid_in(match, STUDY), texts_in(match, MODALITIES), text_in(match, DATE), text_in(match, TIME))


@dataclass(frozen=True)
class SeriesReference:
    """A series that a QIDO-RS search found; the modality is empty if the archive does not report it."""

    study_uid: str
    series_uid: str
    modality: str

    @property
    def may_have_radiographs(self) -> bool:
        """Return whether a series that a QIDO-RS search found may have radiographs, by its modality."""
        return self.modality not in OTHER_MODALITIES


@dataclass(frozen=True)
class InstanceReference:
    """An instance that a QIDO-RS search found, with the modality of its series.

    The SOP class is empty if the archive does not report it.
    """

    study_uid: str
    series_uid: str
    instance_uid: str
    sop_class_uid: str
    modality: str

    @property
    def may_be_radiograph(self) -> bool:
        """Return whether an instance that a QIDO-RS search found may be a radiograph.

        Without a SOP class, only the file itself can tell.
        """
        return not self.sop_class_uid or is_radiograph(self.modality, self.sop_class_uid)


def require_uid(text: str) -> None:
    """Raise ArchiveRefusedError unless a UID is valid by the same rule as the UIDs in QIDO-RS JSON.

    The message omits the text, which may be patient data.
    """
    if UID.fullmatch(text) is None:
        raise ArchiveRefusedError("The Study Instance UID of the request is not a valid DICOM UID.")


def matches_in(response: object) -> Sequence[Match]:
    """Return the matches in the JSON of a QIDO-RS search. Raises MalformedResponseError for other JSON."""
    if not isinstance(response, list) or not all(isinstance(match, dict) for match in response):
        raise MalformedResponseError("its response to a search is JSON, but not a list of DICOM data sets.")
    return response


def uid_in(match: Match, tag: str) -> str:
    """Return the UID in `tag` of an archive's JSON. Raises MalformedResponseError if it is missing or not a UID."""
    value = text_in(match, tag).strip(" \0")
    if UID.fullmatch(value) is None:
        raise MalformedResponseError(f"a match of its search has no UID in ({tag[:4]},{tag[4:]}).")
    return value


def has_uid(match: Match, tag: str) -> bool:
    """Return whether `tag` of an archive's JSON has a valid UID."""
    return UID.fullmatch(text_in(match, tag).strip(" \0")) is not None


def text_in(match: Match, tag: str) -> str:
    """Return the first value of `tag` in an archive's JSON as text; empty if there is none."""
    return next(iter(texts_in(match, tag)), "")


def texts_in(match: Match, tag: str) -> tuple[str, ...]:
    """Return all values of `tag` in an archive's JSON as texts, without null values."""
    return tuple(str(value) for value in _values(match, tag) if value is not None)


def _values(match: object, tag: str) -> list[object]:
    """Return the values of an element, which may be missing, empty or malformed."""
    element = match.get(tag) if isinstance(match, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


@dataclass(frozen=True)
class Failure:
    """An instance that was not stored, as parsed from the DICOM JSON of a STOW-RS response.

    Attributes:
        instance: the SOP Instance UID, or "an instance" if the response has none.
        reason: a code of PS3.18 I.2.2; None if the response has none.
    """

    instance: str
    reason: int | None

    @property
    def is_duplicate(self) -> bool:
        """Return whether the archive's JSON reports that it already has the instance."""
        return self.reason == DUPLICATE

    def __str__(self) -> str:
        return f"{self.instance} (reason {'not given' if self.reason is None else f'0x{self.reason:04X}'})"


def failures_in(body: bytes) -> list[Failure]:
    """Parse the failures in the DICOM JSON of a STOW-RS response, whose body may be empty.

    A body that is not DICOM JSON, such as an error page of a gateway, has none.
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
