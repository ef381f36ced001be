"""Parser and matcher of QIDO-RS queries (PS3.18 8.3.4).

An unsupported key is an error: ignoring it would return results that do not match.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydicom import Dataset
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from app.api.parameters import REPEATABLE_NAME
from app.errors import MalformedRequestError

Level = Literal["study", "series", "instance"]

STUDY_KEYS = (
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ModalitiesInStudy",
    "ReferringPhysicianName",
    "PatientName",
    "PatientID",
    "StudyInstanceUID",
    "StudyID",
)
SERIES_KEYS = (*STUDY_KEYS, "Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription")
INSTANCE_KEYS = (*SERIES_KEYS, "SOPClassUID", "SOPInstanceUID", "InstanceNumber")
KEYS: Mapping[Level, Sequence[str]] = {"study": STUDY_KEYS, "series": SERIES_KEYS, "instance": INSTANCE_KEYS}
PARAMETERS = ("limit", "offset", "includefield", "fuzzymatching")
HEX_TAG = re.compile(r"[0-9A-Fa-f]{8}")
UIDS = re.compile(r"[0-9]+(\.[0-9]+)*")
WHOLE_NUMBER = re.compile(r"[0-9]{1,9}")
DATE, TIME = re.compile(r"[0-9]{8}"), re.compile(r"([0-9]{2}){1,3}|[0-9]{6}\.[0-9]{1,6}")
DATE_RANGE = re.compile(r"(?P<first>[0-9]{8})?-(?P<last>[0-9]{8})?")
TIME_RANGE = re.compile(r"(?P<first>[0-9.]{2,13})?-(?P<last>[0-9.]{2,13})?")
ALL = "all"

Predicate = Callable[[str], bool]


@dataclass(frozen=True)
class Query:
    """A validated QIDO-RS query.

    Attributes:
        keys: for each keyword, a predicate on one value of the attribute.
        study_uids: the studies that may match; None if the query names none.
        fields: tags to return in addition to the default ones; None for all tags of a result.
        limit: results to return at most; None for all.
        offset: matching results to skip.
        fuzzy: whether fuzzy matching was requested; it is not supported.
    """

    keys: Mapping[str, Predicate]
    study_uids: frozenset[str] | None
    fields: frozenset[int] | None
    limit: int | None
    offset: int
    fuzzy: bool

    def matches(self, dataset: Dataset) -> bool:
        """Return whether every key of the QIDO-RS query matches the dataset."""
        return all(_fits(dataset, keyword, fits) for keyword, fits in self.keys.items())

    def page(self, found: Sequence[dict[str, object]]) -> Sequence[dict[str, object]]:
        """Return the results that `limit` and `offset` of the QIDO-RS query select."""
        end = None if self.limit is None else self.offset + self.limit
        return found[self.offset : end]


def parse_query(parameters: Iterable[tuple[str, str]], level: Level) -> Query:
    """Parse the parameters of a QIDO-RS query at one level.

    Raises:
        MalformedRequestError: a key or value is invalid; the message repeats no value, because it may be patient data.
    """
    keys: dict[str, Predicate] = {}
    parameters_given: dict[str, list[str]] = {}
    study_uids: frozenset[str] | None = None
    for name, value in parameters:
        if name in PARAMETERS:
            parameters_given.setdefault(name, []).append(value)
            continue
        keyword = _keyword(name, level)
        if keyword in keys:
            raise MalformedRequestError(f"{keyword} was sent more than once; send each key once.")
        if value.strip() in ("", "*"):  # universal matching (PS3.4 C.2.2.2.3)
            continue
        keys[keyword] = _predicate(keyword, value)
        if keyword == "StudyInstanceUID":
            study_uids = frozenset(_split_values(value))
    limit = _count(parameters_given, "limit")
    return Query(
        keys,
        study_uids,
        _fields(parameters_given.get("includefield", ())),
        limit,
        _count(parameters_given, "offset") or 0,
        _is_fuzzy(parameters_given),
    )


def list_supported(level: Level) -> str:
    """Return a sentence that lists the supported keys and parameters of QIDO-RS queries, for error messages."""
    return f"Supported are {', '.join(KEYS[level])}, each as keyword or tag, and {', '.join(PARAMETERS)}."


def _keyword(name: str, level: Level) -> str:
    keyword = keyword_for_tag(int(name, 16)) if HEX_TAG.fullmatch(name) else name
    if keyword not in KEYS[level]:
        word = f"'{name}'" if REPEATABLE_NAME.fullmatch(name) else "A key of the query"
        raise MalformedRequestError(f"{word} is not supported here. {list_supported(level)}")
    return keyword


def _predicate(keyword: str, value: str) -> Predicate:
    kind = dictionary_VR(keyword)
    value = value.strip()
    if kind == "UI":
        return _uid_predicate(keyword, value)
    if kind in ("DA", "TM"):
        return _range_predicate(keyword, kind, value)
    if kind == "IS":
        if not WHOLE_NUMBER.fullmatch(value):
            raise MalformedRequestError(f"{keyword} has to be a whole number.")
        return lambda stored: stored.lstrip("+").isdigit() and int(stored) == int(value)
    flags = re.IGNORECASE if kind == "PN" else 0
    patterns = [re.compile(_pattern(each), flags) for each in (_split_values(value) if kind == "CS" else [value])]
    return lambda stored: any(pattern.fullmatch(stored) for pattern in patterns)


def _uid_predicate(keyword: str, value: str) -> Predicate:
    wanted = _split_values(value)
    if not all(UIDS.fullmatch(uid) and len(uid) <= 64 for uid in wanted):
        raise MalformedRequestError(f"{keyword} has to be a UID, or several with commas between them; no wildcards.")
    return lambda stored: stored in wanted


def _range_predicate(keyword: str, kind: str, value: str) -> Predicate:
    single, form = (DATE, DATE_RANGE) if kind == "DA" else (TIME, TIME_RANGE)
    if single.fullmatch(value):
        first = last = value
    elif (given := form.fullmatch(value)) and value != "-":
        first, last = given["first"] or "", given["last"] or ""
    else:
        example = "20260131 or 20260101-20260131" if kind == "DA" else "101500 or 080000-170000"
        raise MalformedRequestError(f"{keyword} has to be a value or a range, such as {example}.")
    return lambda stored: bool(stored) and _low(kind, first) <= _low(kind, stored) <= _high(kind, last)


def _low(kind: str, value: str) -> str:
    """Pad a lower bound so that comparing text compares times; an open start is below all values."""
    return value if kind == "DA" else f"{value.replace('.', ''):0<12}"


def _high(kind: str, value: str) -> str:
    """Pad an upper bound so that an open end, and the digits that a short time omits, are above all values."""
    return f"{value.replace('.', ''):9<12}"


def _pattern(value: str) -> str:
    return re.escape(value).replace(r"\*", ".*").replace(r"\?", ".")


def _split_values(value: str) -> list[str]:
    return [each.strip() for each in re.split(r"[,\\]", value)]


def _fits(dataset: Dataset, keyword: str, fits: Predicate) -> bool:
    """Return whether any value of an attribute matches; a missing or empty attribute never does."""
    try:
        stored = dataset.get(keyword)
    except Exception:  # pydicom parses lazily, and raises almost any type on damaged data
        return False
    if stored is None:
        return False
    values = [stored] if isinstance(stored, str) or not hasattr(stored, "__iter__") else list(stored)
    if dictionary_VR(keyword) == "PN":  # iterating over pydicom's PersonName gives letters
        whole = str(stored)
        values = [whole, *whole.split("=")]
    return any(fits(str(value).strip()) for value in values)


def _count(parameters_given: Mapping[str, Sequence[str]], name: str) -> int | None:
    given = parameters_given.get(name, ())
    if not given:
        return None
    if len(given) > 1 or not WHOLE_NUMBER.fullmatch(given[0]):
        raise MalformedRequestError(f"{name} has to be one whole number of at least 0.")
    return int(given[0])


def _is_fuzzy(parameters_given: Mapping[str, Sequence[str]]) -> bool:
    given = parameters_given.get("fuzzymatching", ["false"])
    if len(given) > 1 or given[0].lower() not in ("true", "false"):
        raise MalformedRequestError("fuzzymatching has to be true or false.")
    return given[0].lower() == "true"


def _fields(given: Iterable[str]) -> frozenset[int] | None:
    names = [name.strip() for each in given for name in each.split(",")]
    if ALL in names:
        return None
    tags = [int(name, 16) if HEX_TAG.fullmatch(name) else tag_for_keyword(name) for name in names]
    if None in tags:
        raise MalformedRequestError("includefield has to be DICOM keywords or tags, or all.")
    return frozenset(tag for tag in tags if tag is not None)
