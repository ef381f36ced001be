"""Randomly damaged headers and bodies cause no 500 and no hanging connection, and valid requests still succeed."""

import random
import socket

import httpx
import pytest

from tests.app.conftest import png
from tests.dicom_files import dicom
from tests.phantoms import draw_phantom
from tests.waiting import HUNG_SECONDS

pytestmark = pytest.mark.slow

PHANTOM = png(draw_phantom(seed=1, height=96, width=80))
SEEDS = (PHANTOM, dicom(draw_phantom(seed=2, height=96, width=80)))
WORDS = (
    b"",
    b"\0" * 4,
    b"\xff" * 4,
    b"\r\n",
    b"--b",
    b"\r\n--b--",
    b"Content-Length: 9",
    b"filename*=",
    b";",
    b'"',
    b"IDAT",
)
FORM = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%s\r\n--b--\r\n'
HEAD = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 10\r\n\r\n0123456789"
REQUESTS = 300


def damaged(chance: random.Random, data: bytes) -> bytes:
    """With a few bytes replaced, cut out or put in, most of them near the begin, where the structure is."""
    result = bytearray(data)
    for _ in range(chance.choice((1, 2, 5, 20))):
        place = chance.randrange(min(len(result), chance.choice((200, len(data)))) + 1)
        word = chance.choice((*WORDS, chance.randbytes(3)))
        result[place : place + chance.choice((0, 1, len(word), 40))] = word
    return bytes(result)


def test_damaged_bodies_get_an_answer_that_is_no_failure_of_ours(client: httpx.Client) -> None:
    chance = random.Random(7)
    for number in range(REQUESTS):
        image = chance.choice(SEEDS)
        form = chance.random() < 0.5
        body = damaged(chance, FORM % image if form else image)
        media = "multipart/form-data; boundary=b" if form else "application/octet-stream"
        reply = client.post(
            chance.choice(("/classify", "/cam", "/retrieve")), content=body, headers={"Content-Type": media}
        )
        assert reply.status_code < 500, (number, reply.text)
    assert client.post("/classify", files={"file": PHANTOM}).status_code == 200


def test_damaged_heads_are_answered_or_closed(client: httpx.Client) -> None:
    chance = random.Random(11)
    address = (client.base_url.host, client.base_url.port or 0)
    for number in range(REQUESTS):
        with socket.create_connection(address, timeout=HUNG_SECONDS) as connection:
            connection.sendall(damaged(chance, HEAD))
            connection.shutdown(socket.SHUT_WR)  # nothing more will come, so the service need not wait
            try:
                reply = connection.recv(4096)
            except ConnectionResetError:
                continue
            assert not reply or not reply.startswith(b"HTTP/1.1 5"), (number, reply)
    assert client.get("/health/live").status_code == 200
