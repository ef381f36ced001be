"""Uploads of many kinds of clients are read, whatever their file names and encodings."""

import base64
import gzip
import json
import zlib
from collections.abc import Callable

import httpx
import pytest

from tests.app.conftest import png
from tests.phantoms import draw_phantom

PHANTOM = png(draw_phantom(seed=1))
BOUNDARY = "----b0und"
FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
RUSSIAN = base64.b64encode("плечо.dcm".encode()).decode()


def form(disposition: str, data: bytes = PHANTOM) -> bytes:
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=file; {disposition}\r\n\r\n"
    return head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def classify(client: httpx.Client, body: bytes, **headers: str) -> httpx.Response:
    return client.post("/classify", content=body, headers=headers)


@pytest.mark.parametrize(
    ("disposition", "name"),
    [
        ('filename="C:\\\\Users\\\\x\\\\a.jpg"', "a.jpg"),
        ('filename="C:\\Users\\x\\a.jpg"', "a.jpg"),
        ('filename="study1/image1.jpg"', "image1.jpg"),
        (f"filename=\"=?utf-8?B?{RUSSIAN}?=\"; filename*=utf-8''%D0%BF%D0%BB%D0%B5%D1%87%D0%BE.dcm", "плечо.dcm"),
        ("filename*=UTF-8''R%C3%B6ntgen.jpg", "Röntgen.jpg"),
        ("filename*=iso-8859-1'de'R%F6ntgen.jpg", "Röntgen.jpg"),
        ('filename="Röntgen 手.jpg"', "Röntgen 手.jpg"),
        ('filename="a\\"b.jpg"', 'a"b.jpg'),
        ("filename=a.jpg", "a.jpg"),
        ('filename=""', "radiograph"),
    ],
)
def test_name_is_read_as_its_sender_meant_it_and_without_folders(
    client: httpx.Client, disposition: str, name: str
) -> None:
    reply = client.post("/classify", content=form(disposition), headers=FORM)
    assert reply.status_code == 200, reply.text
    assert reply.json()["radiographs"][0]["name"] == name


def test_name_that_leads_upwards_is_refused(client: httpx.Client) -> None:
    for disposition in ('filename="../a.png"', 'filename="..\\a.png"', "filename*=UTF-8''..%2Fa.png"):
        assert client.post("/classify", content=form(disposition), headers=FORM).status_code == 400


def test_large_part_without_a_file_name_is_a_radiograph_and_a_text_is_not(client: httpx.Client) -> None:
    nameless = form("x=y", png(draw_phantom(seed=1, height=1600, width=1400)))
    assert len(nameless) > 1 << 20
    assert client.post("/classify", content=nameless, headers=FORM).status_code == 200
    text = client.post("/classify", content=form("x=y", b"no image"), headers=FORM)
    assert (text.status_code, "text field" in text.text) == (400, True)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("coding", "pack"),
    [
        ("gzip", gzip.compress),
        ("X-GZIP", gzip.compress),
        ("gzip", lambda data: gzip.compress(data[:99]) + gzip.compress(data[99:])),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
    ],
)
def test_compressed_body_is_read(client: httpx.Client, coding: str, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(PHANTOM)
    expected = classify(client, PHANTOM, **{"Content-Type": "image/png"}).json()["probability"]
    raw = classify(client, packed, **{"Content-Type": "image/png", "Content-Encoding": coding})
    parts = classify(client, pack(form("filename=a")), **FORM, **{"Content-Encoding": coding})
    assert (raw.json()["probability"], parts.json()["probability"]) == (expected, expected)


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "rot13"])
def test_body_packed_in_another_way_gets_415_that_says_what_is_read(client: httpx.Client, coding: str) -> None:
    reply = classify(client, PHANTOM, **{"Content-Type": "image/png", "Content-Encoding": coding})
    assert reply.status_code == 415
    assert "gzip or deflate" in reply.json()["detail"]
    assert ("(br)" in reply.text) == (coding == "br")
    assert "rot13" not in reply.text


def test_body_that_inflates_beyond_the_limit_gets_413(client: httpx.Client) -> None:
    bomb = gzip.compress(bytes(200_000_000), 9)
    for pack in (bomb, gzip.compress(bytes(1 << 20)) * 60):
        reply = classify(client, pack, **{"Content-Type": "image/png", "Content-Encoding": "gzip"})
        assert reply.status_code == 413


@pytest.mark.parametrize(
    "fault", [lambda data: data[:-9], lambda data: data + b"more", lambda data: PHANTOM, lambda data: b""]
)
def test_damaged_compression_gets_400(client: httpx.Client, fault: Callable[[bytes], bytes]) -> None:
    packed = fault(gzip.compress(PHANTOM))
    reply = classify(client, packed, **{"Content-Type": "image/png", "Content-Encoding": "gzip"})
    assert reply.status_code == 400
    assert json.loads(reply.text)["detail"]
