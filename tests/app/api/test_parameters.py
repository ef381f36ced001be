"""A misspelled parameter is an error: ignoring it would answer another question."""

import httpx
import pytest

from tests.app.conftest import png
from tests.phantoms import draw_phantom

PHANTOM = png(draw_phantom(seed=1))
UPLOAD = {"file": ("a.png", PHANTOM)}


@pytest.mark.parametrize(
    ("path", "name", "meant"),
    [
        ("/classify?treshold=default", "treshold", "threshold"),
        ("/classify?Threshold=default", "Threshold", "threshold"),
        ("/retrieve?top_k=2", "top_k", "k"),
        ("/retrieve?bodypart=XR_HAND", "bodypart", "body_part"),
        ("/retrieve?exclude=XR_HAND/patient1/study1", "exclude", "exclude_study"),
        ("/cam?opacity=0.2&stile=map", "opacity", "alpha"),
        ("/cam?stile=map", "stile", "style"),
        ("/analyze?cams=none", "cams", "cam"),
        ("/analyze?k=2&perstudy=1", "perstudy", "per_study"),
    ],
)
def test_unknown_parameter_gets_422_that_names_it_and_the_nearest_known_one(
    client: httpx.Client, path: str, name: str, meant: str
) -> None:
    reply = client.post(path, files=UPLOAD)
    assert reply.status_code == 422
    assert f"'{name}'" in reply.json()["detail"]
    assert meant in reply.json()["detail"]


def test_nearest_parameter_is_told_first(client: httpx.Client) -> None:
    for written, meant in (("treshold", "threshold"), ("top_k", "k"), ("similarity_below", "below")):
        detail = client.post(f"/analyze?{written}=1", files=UPLOAD).json()["detail"]
        assert f"the nearest is '{meant}'" in detail


def test_jobs_name_the_parameter_that_they_do_not_know(client: httpx.Client) -> None:
    reply = client.get("/jobs?staet=dead")
    assert (reply.status_code, "'staet'" in reply.text, "'state'" in reply.text) == (422, True, True)


@pytest.mark.parametrize("path", ["/retrieve?k=5&k=6", "/classify?threshold=default&threshold=default"])
def test_parameter_that_comes_twice_gets_422(client: httpx.Client, path: str) -> None:
    reply = client.post(path, files=UPLOAD)
    assert reply.status_code == 422
    assert "2 times" in reply.json()["detail"]


@pytest.mark.parametrize("field", ["threshold", "patientId", "files", "file[]", "note"])
def test_unknown_form_field_gets_422_that_names_it(client: httpx.Client, field: str) -> None:
    for extra in ((field, (None, "x")), (field, ("b.png", PHANTOM))):
        reply = client.post("/classify", files=[extra, ("file", ("a.png", PHANTOM))])
        assert reply.status_code == 422
        assert f"'{field}'" in reply.json()["detail"]
        assert "'file'" in reply.json()["detail"]


def test_encoding_of_an_html_form_is_no_unknown_field(client: httpx.Client) -> None:
    reply = client.post("/classify", files=[("_charset_", (None, "utf-8")), ("file", ("a.png", PHANTOM))])
    assert reply.status_code == 200


def test_name_that_may_be_a_patients_is_not_repeated(client: httpx.Client) -> None:
    in_the_query = client.post("/classify", params={"Doe^Jane": "1"}, files=UPLOAD)
    in_the_form = client.post("/classify", files=[("Doe^Jane", (None, "1")), ("file", ("a.png", PHANTOM))])
    for reply in (in_the_query, in_the_form):
        assert reply.status_code == 422
        assert "Doe" not in reply.text


def test_probe_may_add_what_it_likes_where_nothing_is_taken(client: httpx.Client) -> None:
    assert client.get("/health/live?now=1764300000").status_code == 200


@pytest.mark.parametrize("value", ["0", "-5", "nan", "soon", "100, 200", ""])
def test_deadline_that_is_no_time_gets_422(client: httpx.Client, value: str) -> None:
    assert client.post("/classify", files=UPLOAD, headers={"X-Deadline-Ms": value}).status_code == 422


def test_deadline_that_comes_twice_gets_422(client: httpx.Client) -> None:
    headers = [("X-Deadline-Ms", "20000"), ("X-Deadline-Ms", "30000")]
    assert client.post("/classify", files=UPLOAD, headers=headers).status_code == 422
