"""Every bad request gets a problem that says what to change, and the next good one is answered."""

import inspect
import io
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from shutil import copytree
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.routing import APIRoute
from PIL import Image

from app.api import operations, predict
from app.replica import Replica, assemble
from app.settings import Settings
from tests.app.conftest import held, metric, png, serving
from tests.phantoms import draw_phantom
from tests.waiting import HUNG_SECONDS

pytestmark = pytest.mark.slow

PHANTOM, OTHER_PHANTOM = png(draw_phantom(seed=1)), png(draw_phantom(seed=2))
MEBIBYTE = 1 << 20


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(draw_phantom(seed=1)).save(buffer, "JPEG")
    return buffer.getvalue()


def huge_header() -> bytes:
    """A PNG that announces 30000x30000 pixels and holds none."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0)
    chunks = [header, b"IDAT" + zlib.compress(b""), b"IEND"]
    body = b"".join(struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def form(*images: bytes, name: str = "image1.png") -> dict[str, Any]:
    return {"files": [("file", (name, image)) for image in images]}


def raw(content: bytes, content_type: str) -> dict[str, Any]:
    return {"content": content, "headers": {"Content-Type": content_type}}


REFUSALS: dict[str, tuple[str, str, dict[str, Any], int, str | None]] = {
    "empty body": ("POST", "/classify", raw(b"", "image/png"), 400, "MalformedRequestError"),
    "empty part": ("POST", "/classify", form(b""), 400, "MalformedRequestError"),
    "form without file": ("POST", "/classify", {"files": {"image": ("a.png", PHANTOM)}}, 400, "MalformedRequestError"),
    "file as text": ("POST", "/classify", {"files": {"file": (None, "x")}}, 400, "MalformedRequestError"),
    "broken multipart": ("POST", "/classify", raw(b"x", "multipart/form-data; boundary=b"), 400, None),
    "no boundary": ("POST", "/classify", raw(b"x", "multipart/form-data"), 400, None),
    "folder in name": ("POST", "/classify", form(PHANTOM, name="../a.png"), 400, "MalformedRequestError"),
    "text as png": ("POST", "/classify", form(b"not an image"), 415, "UnsupportedFormatError"),
    "truncated png": ("POST", "/cam", form(PHANTOM[: len(PHANTOM) // 2]), 422, "UnreadableImageError"),
    "truncated jpeg": ("POST", "/cam", form(jpeg()[: len(jpeg()) // 2]), 422, "UnreadableImageError"),
    "huge header": ("POST", "/classify", form(huge_header()), 413, "TooManyPixelsError"),
    "60 MB of noise": ("POST", "/classify", form(bytes(60_000_000)), 413, "PayloadTooLargeError"),
    "constant": ("POST", "/classify", form(png(np.full((64, 64), 9, np.uint8))), 422, "NoContentError"),
    "17 files": ("POST", "/classify", form(*[PHANTOM] * 17), 422, "OutOfRangeError"),
    "40 files": ("POST", "/classify", form(*[PHANTOM] * 40), 422, "OutOfRangeError"),
    "2000 files": ("POST", "/classify", form(*[PHANTOM[:9]] * 2000), 400, None),
    "two files to cam": ("POST", "/cam", form(PHANTOM, PHANTOM), 422, "OutOfRangeError"),
    "k=0": ("POST", "/retrieve?k=0", form(PHANTOM), 422, "OutOfRangeError"),
    "k=10**9": ("POST", "/retrieve?k=1000000000", form(PHANTOM), 422, "OutOfRangeError"),
    "alpha=nan": ("POST", "/cam?alpha=nan", form(PHANTOM), 422, "OutOfRangeError"),
    "unknown style": ("POST", "/cam?style=sepia", form(PHANTOM), 422, "OutOfRangeError"),
    "unknown body part": ("POST", "/retrieve?body_part=XR_TAIL", form(PHANTOM), 422, "InputError"),
    "k=many": ("POST", "/retrieve?k=many", form(PHANTOM), 422, "OutOfRangeError"),
    "study without a name": ("POST", "/retrieve?exclude_study=nonsense", form(PHANTOM), 422, "OutOfRangeError"),
    "get": ("GET", "/classify", {}, 405, "WrongMethodError"),
    "no such path": ("GET", "/nothing", {}, 404, "UnknownPathError"),
    "wrong content type": ("POST", "/classify", raw(PHANTOM, "text/plain"), 415, "UnsupportedContentTypeError"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_request_gets_a_problem_and_the_next_good_one_is_answered(client: httpx.Client, name: str) -> None:
    method, path, body, status, kind = REFUSALS[name]
    reply = client.request(method, path, **body)
    problem = reply.json()
    assert (reply.status_code, problem["status"]) == (status, status)
    assert reply.headers["content-type"] == "application/problem+json"
    assert kind is None or problem["type"].endswith(kind)
    assert problem["title"]
    assert len(problem["detail"]) > 8
    assert "Traceback" not in reply.text
    assert client.post("/classify", **form(PHANTOM)).status_code == 200


@pytest.mark.parametrize("path", ["/cam?alpha=nan", "/retrieve?k=0", "/retrieve?body_part=XR_TAIL", "/analyze?cam=x"])
def test_bad_option_is_refused_before_the_network_runs(client: httpx.Client, path: str) -> None:
    before = metric(client, "osteon_batch_size_count")
    assert client.post(path, **form(PHANTOM)).status_code == 422
    assert metric(client, "osteon_batch_size_count") == before


def test_studys_radiographs_share_the_limit_on_pixels(service: Replica) -> None:
    size = draw_phantom(seed=1).size
    limited = assemble(service.settings.model_copy(update={"max_pixels": 2 * size}), service.predictor.bundle)
    with serving(limited) as client:
        assert client.post("/classify", **form(PHANTOM, PHANTOM)).status_code == 200
        problem = client.post("/classify", **form(PHANTOM, PHANTOM, PHANTOM)).json()
        assert problem["type"].endswith("TooManyPixelsError")
        assert problem["detail"].startswith("Radiograph 3 of 3")


def test_one_bad_radiograph_of_a_study_is_told_by_its_place_and_not_by_its_name(client: httpx.Client) -> None:
    views = [("file", (f"DOE^JOHN {number}.png", PHANTOM)) for number in range(3)]
    views[1] = ("file", ("DOE^JOHN 1.png", PHANTOM[:200]))
    problem = client.post("/classify", files=views).json()
    assert problem["type"].endswith("UnreadableImageError")
    assert problem["detail"].startswith("Radiograph 2 of 3: ")
    assert "DOE" not in problem["detail"]


def test_body_without_declared_length_is_cut_off_at_the_limit(client: httpx.Client) -> None:
    chunks = (bytes(MEBIBYTE) for _ in range(60))
    assert client.post("/classify", content=chunks, headers={"Content-Type": "image/png"}).status_code == 413


def test_full_service_refuses_with_retry_after_and_answers_those_inside(service: Replica) -> None:
    engine, held_service = held(service, max_pending=1)
    with serving(held_service) as client:
        inside: list[httpx.Response] = []
        caller = threading.Thread(target=lambda: inside.append(client.post("/classify", **form(PHANTOM))))
        caller.start()
        engine.entered.wait(HUNG_SECONDS)
        refused = client.post("/classify", **form(PHANTOM))
        engine.gate.set()
        caller.join()
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert inside[0].status_code == 200
        assert client.post("/classify", **form(PHANTOM)).status_code == 200


def test_crowded_service_turns_callers_away_before_it_looks_at_what_they_ask(service: Replica) -> None:
    _, crowded = held(service)
    crowded.predictor.admission.latency.restart({1: 1.0, 8: 8.0})
    with serving(crowded) as client, crowded.predictor.admission.admit(1, deadline=30) as permit:
        permit.radiographs = 100
        refused = client.post("/classify", headers={"X-Deadline-Ms": "nonsense"})
        assert refused.status_code == 429
        assert int(refused.headers["Retry-After"]) >= 1
        assert "100 radiographs wait" in refused.json()["detail"]
        assert metric(client, 'osteon_refusals_total{reason="wait"}') == 1
        assert client.get("/info").status_code == 200


def test_no_request_is_sent_through_a_thread_for_what_it_depends_on() -> None:
    endpoints = [each for each in (*predict.router.routes, *operations.router.routes) if isinstance(each, APIRoute)]
    dependencies = [each for endpoint in endpoints for each in endpoint.dependant.dependencies]
    assert dependencies
    assert all(inspect.iscoroutinefunction(each.call) for each in dependencies)


def test_callers_own_deadline_is_kept(service: Replica) -> None:
    engine, held_service = held(service)
    with serving(held_service) as client:
        hurried = client.post("/classify", **form(PHANTOM), headers={"X-Deadline-Ms": "200"})
        assert hurried.status_code == 504
        assert "0.2 s" in hurried.json()["detail"]
        engine.gate.set()
        for nonsense in ("0", "-5", "nan", "soon"):
            reply = client.post("/classify", **form(PHANTOM), headers={"X-Deadline-Ms": nonsense})
            assert reply.status_code == 422


def test_caller_that_hangs_up_while_waiting_costs_no_pass(service: Replica) -> None:
    engine, held_service = held(service)
    with serving(held_service) as client:
        first = threading.Thread(target=lambda: client.post("/classify", **form(PHANTOM)))
        first.start()
        engine.entered.wait(HUNG_SECONDS)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{client.base_url}/classify", **form(OTHER_PHANTOM), timeout=0.3)
        while metric(client, "osteon_pending_requests") > 1:
            time.sleep(0.01)
        engine.gate.set()
        first.join()
        client.post("/classify", **form(jpeg()))
        assert metric(client, "osteon_batch_size_sum") == 2


def test_late_answer_is_a_504_and_frees_its_place(service: Replica) -> None:
    engine, held_service = held(service, max_pending=1, deadline_seconds=0.2)
    with serving(held_service) as client:
        assert client.post("/classify", **form(PHANTOM)).status_code == 504
        engine.gate.set()
        assert client.get("/health/ready").status_code == 200


def test_engine_failure_is_a_500_that_hides_its_cause_and_the_next_request_is_fine(service: Replica) -> None:
    engine, held_service = held(service)
    engine.gate.set()
    with serving(held_service) as client:
        engine.broken = True
        failed = client.post("/classify", **form(PHANTOM))
        engine.broken = False
        assert failed.status_code == 500
        assert metric(client, 'osteon_requests_total{endpoint="/classify",status="500"}') == 1
        assert "secret" not in failed.text
        assert client.post("/classify", **form(PHANTOM)).status_code == 200


@pytest.mark.parametrize(
    ("artifact", "file"),
    [("checkpoint", "weights.safetensors"), ("gallery", "index.faiss"), ("gallery", "entries.parquet")],
)
def test_flipped_byte_keeps_the_service_from_starting_and_names_the_file(
    settings: Settings, tmp_path: Path, artifact: str, file: str
) -> None:
    folders = {name: copytree(getattr(settings, name), tmp_path / name) for name in ("checkpoint", "gallery")}
    damaged = folders[artifact] / file
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    environment = {f"OSTEON_{name.upper()}": str(folder) for name, folder in folders.items()}
    started = subprocess.run(
        [sys.executable, "-m", "app"],
        env=environment | {"OSTEON_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=HUNG_SECONDS,
    )
    assert started.returncode != 0
    assert file in started.stderr
    assert "Traceback" not in started.stderr
