"""QIDO-RS and WADO-RS return the results that the service keeps."""

import logging
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from pydicom import Dataset

from app.replica import Replica, assemble
from pacs.results.dicom_json import dataset_to_json
from tests.app.api.test_stow_rs import STUDY, finished, hand, hospital_at, related, stow
from tests.app.conftest import serving
from tests.dicom_files import CANARY

pytestmark = pytest.mark.slow

OTHER, CAPTURE = "1.2.3", "1.2.840.10008.5.1.4.1.1.7"


@pytest.fixture(scope="module")
def client(service: Replica, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Has the results of two studies."""
    hospital = hospital_at(tmp_path_factory.mktemp("hospital"), settle=0)
    with serving(assemble(service.settings, service.predictor.bundle, hospital)) as client:
        for file in (hand(1), hand(1, study=OTHER)):
            assert finished(client, stow(client, related(file)).headers["x-jobs"])["state"] == "kept"
        yield client


def found(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    """The matches; 204 stands for none."""
    reply = client.get(f"/dicom-web/{query}")
    assert reply.status_code in (HTTPStatus.OK, HTTPStatus.NO_CONTENT), reply.text
    if reply.status_code == HTTPStatus.NO_CONTENT:
        assert reply.content == b""
        return []
    assert reply.headers["content-type"] == "application/dicom+json"
    return list(reply.json())


def values(matches: list[dict[str, Any]], tag: str) -> list[object]:
    return [match[tag]["Value"][0] for match in matches]


def test_instance_that_is_not_there_is_not_found(client: httpx.Client) -> None:
    uids = values(found(client, f"studies/{STUDY}/instances"), "00080018")
    assert len(uids) == 2
    for uid in uids:
        for key in ("SOPInstanceUID", "00080018"):
            assert values(found(client, f"studies/{STUDY}/instances?{key}={uid}"), "00080018") == [uid]
            assert found(client, f"studies/{OTHER}/instances?{key}={uid}") == []
    assert found(client, f"studies/{STUDY}/instances?SOPInstanceUID=1.2.3.4.5") == []


@pytest.mark.parametrize(
    ("query", "count"),
    [
        (f"studies?StudyInstanceUID={STUDY}", 1),
        (f"studies?StudyInstanceUID={STUDY},{OTHER}", 2),
        (f"studies?StudyInstanceUID={STUDY},{OTHER}&limit=1", 1),
        (f"studies?StudyInstanceUID={STUDY}&offset=1", 0),
        (f"studies?0020000D={STUDY}&PatientID=CANARY-4711", 1),
        (f"studies?StudyInstanceUID={STUDY}&PatientID=SOMEBODY-ELSE", 0),
        (f"studies?StudyInstanceUID={STUDY}&PatientName=canary*", 1),
        (f"studies?StudyInstanceUID={STUDY}&ModalitiesInStudy=SR", 1),
        ("studies?StudyInstanceUID=1.2.3.4.5", 0),
        (f"studies/{STUDY}/series", 2),
        (f"studies/{STUDY}/series?Modality=SR", 1),
        (f"studies/{STUDY}/series?Modality=CT", 0),
        (f"series?StudyInstanceUID={STUDY}&Modality=OT", 1),
        (f"instances?StudyInstanceUID={STUDY},{OTHER}", 4),
        (f"instances?StudyInstanceUID={STUDY}&SOPClassUID={CAPTURE}", 1),
        (f"studies/{STUDY}/instances?limit=1", 1),
        (f"studies/{STUDY}/instances?limit=0", 0),
        (f"studies/{STUDY}/instances?StudyInstanceUID={OTHER}", 0),
        ("studies/1.2.3.4.5/instances", 0),
    ],
)
def test_search_finds_what_matches_and_nothing_else(client: httpx.Client, query: str, count: int) -> None:
    assert len(found(client, query)) == count


@pytest.mark.parametrize("path", ["studies", "series", "instances"])
def test_search_without_a_study_is_told_to_name_one(client: httpx.Client, path: str) -> None:
    for query in ("", "?PatientID=CANARY-4711", "?StudyInstanceUID=", "?limit=5"):
        reply = client.get(f"/dicom-web/{path}{query}")
        assert (reply.status_code, reply.headers["content-type"]) == (400, "application/problem+json")
        assert "give StudyInstanceUID" in reply.json()["detail"]
        assert "PatientID" in reply.json()["detail"]


def test_unknown_key_is_refused_with_those_that_are_known(client: httpx.Client) -> None:
    reply = client.get(f"/dicom-web/studies/{STUDY}/instances?PatientWeight=70")
    assert (reply.status_code, reply.headers["content-type"]) == (400, "application/problem+json")
    assert all(key in reply.json()["detail"] for key in ("SOPInstanceUID", "PatientID", "limit", "includefield"))


def test_fuzzy_matching_is_done_literally_and_said_so(client: httpx.Client) -> None:
    reply = client.get(f"/dicom-web/studies?StudyInstanceUID={STUDY}&PatientName=kanary&fuzzymatching=true")
    assert reply.status_code == HTTPStatus.NO_CONTENT
    assert "fuzzymatching parameter is not supported" in reply.headers["warning"]


def test_series_is_found_once_with_the_count_of_its_instances(client: httpx.Client) -> None:
    for match in found(client, f"studies/{STUDY}/series"):
        uid = match["0020000E"]["Value"][0]
        assert match["00201209"]["Value"] == [1]
        assert len(found(client, f"studies/{STUDY}/series/{uid}/instances")) == 1
    (study,) = found(client, f"studies?StudyInstanceUID={STUDY}")
    assert (study["00201206"]["Value"], study["00201208"]["Value"]) == ([2], [2])
    assert sorted(study["00080061"]["Value"]) == ["OT", "SR"]


def test_included_fields_are_returned_and_pixels_never(client: httpx.Client) -> None:
    path = f"studies/{STUDY}/instances?SOPClassUID={CAPTURE}"
    assert "00280004" not in found(client, path)[0]
    assert values(found(client, f"{path}&includefield=PhotometricInterpretation"), "00280004") == ["RGB"]
    assert values(found(client, f"{path}&includefield=00280004,7FE00010"), "00280004") == ["RGB"]
    assert "7FE00010" not in found(client, f"{path}&includefield=7FE00010")[0]
    assert len(found(client, f"{path}&includefield=all")[0]) > len(found(client, path)[0])


@pytest.mark.parametrize("path", ["studies/abc/series", "studies/%00/instances", "studies/1%0a2", "studies/x/metadata"])
def test_path_without_a_uid_is_refused(client: httpx.Client, path: str) -> None:
    assert client.get(f"/dicom-web/{path}").status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert client.get("/jobs?study=%00").status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert client.get("/jobs/%00").status_code == HTTPStatus.NOT_FOUND


@pytest.mark.filterwarnings("ignore:Invalid value")
def test_values_that_json_cannot_hold_are_left_empty_and_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    dataset = Dataset()
    dataset.PatientID = "1"
    dataset.add_new("PatientWeight", "DS", "1")
    dataset["PatientWeight"]._value = CANARY
    dataset.add_new("RealWorldValueSlope", "FD", float("nan"))
    dataset.add_new("PixelData", "OB", b"1234")
    assert dataset_to_json(dataset) == {
        "00100020": {"vr": "LO", "Value": ["1"]},
        "00101030": {"vr": "DS"},
        "00409225": {"vr": "FD"},
    }
    assert CANARY not in caplog.text
