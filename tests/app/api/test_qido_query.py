"""A QIDO-RS query finds what matches all of its keys, and nothing that is not there."""

from urllib.parse import parse_qsl

import pytest
from pydicom import Dataset

from app.api.qido_query import Level, parse_query
from app.errors import MalformedRequestError


def result(**tags: object) -> Dataset:
    dataset = Dataset()
    usual = {
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.1",
        "SOPInstanceUID": "1.2.3.1.1",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7",
        "Modality": "OT",
        "ModalitiesInStudy": ["OT", "SR"],
        "PatientName": "Müller^Zoë=山田^太郎",
        "PatientID": "A-17",
        "StudyDate": "20260115",
        "StudyTime": "101530.25",
        "InstanceNumber": 2,
        "AccessionNumber": "",
    }
    for keyword, value in {**usual, **tags}.items():
        setattr(dataset, keyword, value)
    return dataset


def finds(query: str, level: Level = "instance") -> bool:
    return parse_query(parse_qsl(query, keep_blank_values=True), level).matches(result())


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", True),
        ("SOPInstanceUID=1.2.3.1.1", True),
        ("SOPInstanceUID=1.2.3.1.2", False),
        ("SOPInstanceUID=1.2.3.1", False),
        ("00080018=1.2.3.1.1", True),
        ("00080018=1.2.3.4.5", False),
        ("0020000D=1.2.3", True),
        ("0020000d=1.2.4", False),
        ("SOPInstanceUID=9.9,1.2.3.1.1", True),
        ("SOPInstanceUID=9.9%5C1.2.3.1.1", True),
        ("SOPInstanceUID=9.9,9.8", False),
        ("SOPClassUID=1.2.840.10008.5.1.4.1.1.7", True),
        ("SOPClassUID=1.2.840.10008.5.1.4.1.1.88.34", False),
        ("Modality=OT", True),
        ("Modality=ot", False),
        ("Modality=CT", False),
        ("Modality=CT%5COT", True),
        ("Modality=O*", True),
        ("ModalitiesInStudy=SR", True),
        ("ModalitiesInStudy=CT", False),
        ("PatientID=A-17", True),
        ("PatientID=a-17", False),
        ("PatientID=A-1", False),
        ("PatientID=A-*", True),
        ("PatientID=A-1?", True),
        ("PatientID=A-1??", False),
        ("PatientID=A.17", False),
        ("PatientID=[A]-17", False),
        ("PatientID=", True),
        ("PatientID=*", True),
        ("PatientName=müller*", True),
        ("PatientName=山田*", True),
        ("PatientName=SOMEBODY*", False),
        ("StudyDate=20260115", True),
        ("StudyDate=20260114", False),
        ("StudyDate=20260101-20260131", True),
        ("StudyDate=20260116-", False),
        ("StudyDate=-20260115", True),
        ("StudyDate=-20260114", False),
        ("StudyTime=101530.25", True),
        ("StudyTime=1015", True),
        ("StudyTime=1016", False),
        ("StudyTime=08-10", True),
        ("StudyTime=102000-", False),
        ("InstanceNumber=2", True),
        ("InstanceNumber=02", True),
        ("InstanceNumber=3", False),
        ("AccessionNumber=", True),
        ("AccessionNumber=7", False),
        ("StudyID=7", False),
        ("SOPInstanceUID=1.2.3.1.1&Modality=CT", False),
        ("SOPInstanceUID=1.2.3.1.1&Modality=OT", True),
    ],
)
def test_result_is_found_only_if_it_matches(query: str, found: bool) -> None:
    assert finds(query) is found


@pytest.mark.parametrize(
    ("query", "level", "named"),
    [
        ("SOPInstanceUIDs=1.2", "instance", "SOPInstanceUID"),
        ("sopinstanceuid=1.2", "instance", "SOPInstanceUID"),
        ("PatientWeight=Canary", "instance", "PatientID"),
        ("00101030=70", "instance", "PatientID"),
        ("00400275.00400009=7", "series", "StudyID"),
        ("SOPInstanceUID=1.2", "series", "SeriesInstanceUID"),
        ("Modality=OT", "study", "ModalitiesInStudy"),
        ("SOPInstanceUID=1.2.*", "instance", "UID"),
        ("SOPInstanceUID=Canary", "instance", "UID"),
        ("StudyDate=2026", "study", "StudyDate"),
        ("StudyDate=-", "study", "StudyDate"),
        ("StudyTime=Canary", "study", "StudyTime"),
        ("InstanceNumber=x", "instance", "InstanceNumber"),
        ("Modality=OT&Modality=SR", "instance", "Modality"),
        ("limit=-1", "study", "limit"),
        ("limit=", "study", "limit"),
        ("limit=1&limit=2", "study", "limit"),
        ("offset=x", "study", "offset"),
        ("fuzzymatching=maybe", "study", "fuzzymatching"),
        ("includefield=Canary", "study", "includefield"),
    ],
)
def test_query_that_cannot_be_matched_is_refused_with_what_can(query: str, level: Level, named: str) -> None:
    with pytest.raises(MalformedRequestError, match=named) as refused:
        parse_query(parse_qsl(query, keep_blank_values=True), level)
    assert "Canary" not in str(refused.value)


def test_key_that_is_not_supported_is_named() -> None:
    with pytest.raises(MalformedRequestError, match=r"^'PatientNam' is not supported here"):
        parse_query([("PatientNam", "x")], "study")


def test_page_is_cut_from_what_was_found() -> None:
    found: list[dict[str, object]] = [{"n": number} for number in range(5)]
    for query, page in (("", found), ("limit=2", found[:2]), ("offset=3", found[3:]), ("limit=1&offset=1", found[1:2])):
        assert parse_query(parse_qsl(query), "study").page(found) == page
    assert parse_query(parse_qsl("limit=0"), "study").page(found) == []
