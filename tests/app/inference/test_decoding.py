"""No file keeps a worker for long or takes the service's memory: what is costly is decoded in a process of its own."""

import asyncio
import io
import signal
import threading
from http import HTTPStatus
from typing import Any

import httpx
import imagecodecs
import numpy as np
import pytest
from PIL import Image

from app.inference import decoding
from app.replica import Replica, assemble
from tests.app.conftest import png, serving
from tests.phantoms import draw_phantom
from tests.waiting import HUNG_SECONDS
from xray.images.decoding.decode import decode_radiograph, decoding_effort
from xray.sandbox import pool as process_pool

pytestmark = pytest.mark.slow


def large(width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(draw_phantom(seed=5)).resize((width, height)))


def scans_of_death(scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: each costs a pass over all pixels."""
    buffer = io.BytesIO()
    Image.fromarray(large(3000, 3000)).save(buffer, "JPEG", progressive=True)
    whole = buffer.getvalue()
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * scans + whole[-2:]


def test_effort_is_read_from_the_header() -> None:
    assert decoding_effort(png(draw_phantom(seed=1, height=160, width=128))) == 160 * 128
    assert decoding_effort(scans_of_death(10)) >= 15 * 9_000_000
    assert decoding_effort(b"no image") == 0


def test_large_radiograph_is_answered_as_a_thread_would_have(service: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    body = png(large(4000, 3500))
    assert not decoding_effort(body) <= decoding.MAX_QUICK_EFFORT
    expected = service.predictor.bundle.predictor.predict([decode_radiograph(body)]).radiographs[0]
    with serving(assemble(service.settings, service.predictor.bundle)) as client:
        reply = client.post("/classify", files={"file": body}, timeout=HUNG_SECONDS).json()
        assert reply["radiographs"][0]["logit"] == pytest.approx(expected.logit, abs=1e-4)
        assert (reply["radiographs"][0]["width"], reply["radiographs"][0]["height"]) == (4000, 3500)
        damaged = client.post("/classify", files={"file": body[: len(body) // 2]}, timeout=HUNG_SECONDS)
        assert damaged.json()["type"].endswith("UnreadableImageError")
        assert damaged.json()["detail"].startswith("Radiograph 1 of 1: The PNG is truncated")


def test_rare_kinds_of_image_are_decoded_apart_and_answered_like_others(
    service: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = draw_phantom(seed=5)
    deep = pixels.astype(np.uint16) << 4
    bodies = (
        imagecodecs.png_encode(np.dstack([deep] * 3)),
        imagecodecs.jpeg_encode(deep, lossless=True, bitspersample=12),
        imagecodecs.jpegls_encode(deep),
    )
    with serving(assemble(service.settings, service.predictor.bundle)) as client:
        expected = client.post("/classify", files={"file": png(pixels)}).json()["radiographs"][0]["logit"]
        # Nothing but a process apart can decode from here on.
        monkeypatch.setattr(decoding, "decode_radiograph", None)
        for body in bodies:
            reply = client.post("/classify", files={"file": bytes(body)}).json()
            assert reply["radiographs"][0]["logit"] == pytest.approx(expected, abs=1e-4)


def test_jpeg_of_a_process_that_is_not_read_gets_a_415_that_names_it(client: httpx.Client) -> None:
    buffer = io.BytesIO()
    Image.fromarray(draw_phantom(seed=5)).save(buffer, "JPEG")
    odd = buffer.getvalue().replace(b"\xff\xc0", b"\xff\xcb", 1)
    reply = client.post("/classify", files={"file": odd})
    assert reply.status_code == HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    assert "arithmetic lossless process" in reply.json()["detail"]


def test_file_that_takes_too_long_is_refused_and_meanwhile_others_are_answered(
    service: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_pool, "COMMAND_PREFIX", ("sh", "-c", "echo; while :; do :; done"))
    settings = service.settings.model_copy(update={"decode_seconds": 1.0, "decode_threads": 1})
    with serving(assemble(settings, service.predictor.bundle)) as client:
        replies: list[httpx.Response] = []
        body = scans_of_death(10)
        hostile = threading.Thread(target=lambda: replies.append(client.post("/classify", files={"file": body})))
        hostile.start()
        answered = 0
        while hostile.is_alive():
            reply = client.post("/classify", files={"file": png(draw_phantom(seed=100 + answered))})
            assert reply.status_code == HTTPStatus.OK
            answered += 1
        hostile.join()
        assert answered >= 2
        assert replies[0].status_code == HTTPStatus.UNPROCESSABLE_ENTITY
        assert "takes more than 1 s" in replies[0].json()["detail"]


def test_image_that_brings_its_decoder_down_is_told_of_and_the_next_is_fine(
    service: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = png(large(4000, 3500))
    with serving(assemble(service.settings, service.predictor.bundle)) as client:
        with monkeypatch.context() as patch:
            patch.setattr(process_pool, "COMMAND_PREFIX", ("sh", "-c", "echo; head -c 1 >/dev/null"))
            reply = client.post("/classify", files={"file": body}, timeout=HUNG_SECONDS)
        assert reply.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
        assert reply.json()["type"].endswith("UnreadableImageError")
        assert client.post("/classify", files={"file": body}, timeout=HUNG_SECONDS).status_code == HTTPStatus.OK


def test_image_whose_decoder_is_paused_for_longer_than_its_time_is_answered(
    service: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = asyncio.create_subprocess_exec
    decoders: list[asyncio.subprocess.Process] = []

    async def start_and_remember(*command: str, **options: Any) -> asyncio.subprocess.Process:
        decoders.append(await start(*command, **options))
        return decoders[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_and_remember)
    settings = service.settings.model_copy(update={"decode_seconds": 3.0, "deadline_seconds": HUNG_SECONDS})
    with serving(assemble(settings, service.predictor.bundle)) as client:
        client.post("/classify", files={"file": png(large(4000, 3500))}, timeout=HUNG_SECONDS)
        (decoder,) = decoders
        decoder.send_signal(signal.SIGSTOP)
        go_on = threading.Timer(2 * settings.decode_seconds, decoder.send_signal, [signal.SIGCONT])
        go_on.start()
        reply = client.post("/classify", files={"file": png(large(4000, 3501))}, timeout=HUNG_SECONDS)
        go_on.join()
        assert (reply.status_code, len(decoders)) == (HTTPStatus.OK, 1)


@pytest.mark.parametrize("command", [("env", "false"), ("env", "prlimit", "--as=150000000")])
def test_image_is_not_blamed_for_a_decoder_that_cannot_start(
    service: Replica, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    body = png(large(4000, 3500))
    with serving(assemble(service.settings, service.predictor.bundle)) as client:
        with monkeypatch.context() as patch:
            patch.setattr(process_pool, "COMMAND_PREFIX", command)
            reply = client.post("/classify", files={"file": body}, timeout=HUNG_SECONDS)
        assert reply.status_code == HTTPStatus.SERVICE_UNAVAILABLE
        assert int(reply.headers["retry-after"]) > 0
        assert client.post("/classify", files={"file": body}, timeout=HUNG_SECONDS).status_code == HTTPStatus.OK


def test_image_is_told_of_where_its_decoder_ends_before_it_reads_it(
    service: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = asyncio.create_subprocess_exec

    async def start_and_see_it_end(*command: str, **options: Any) -> asyncio.subprocess.Process:
        process = await start(*command, **options)
        await process.wait()
        await asyncio.sleep(0.1)
        return process

    monkeypatch.setattr(process_pool, "COMMAND_PREFIX", ("sh", "-c", "echo"))
    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_and_see_it_end)
    with serving(assemble(service.settings, service.predictor.bundle)) as client:
        reply = client.post("/classify", files={"file": png(large(4000, 3500))}, timeout=HUNG_SECONDS)
        assert reply.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
        assert reply.json()["type"].endswith("UnreadableImageError")
