"""An archive that has one study and takes what it is sent; how it gives out each instance is up to the test."""

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from pydicom import dcmread

from tests.app.api.test_stow_rs import STUDY
from tests.pacs.client.test_http_session import DICOM_JSON, Reply, Request, answering

PATIENT_ID = "CANARY-4711"
DX = "1.2.840.10008.5.1.4.1.1.1.1"


@dataclass
class HeldStudy:
    """What it gives for each instance: a file's bytes, or a whole reply.

    Attributes:
        modality: of the only series.
        stored: what it was sent by STOW-RS, and gives out.
    """

    given: Mapping[str, bytes | Reply]
    modality: str = "DX"
    sop_class: str = DX
    stored: dict[str, bytes] = field(default_factory=dict)

    def reply(self, request: Request) -> Reply:
        url = urlsplit(request.path)
        if request.command == "POST":
            return self._store(request.body)
        if url.path.endswith("/studies"):
            return _json([_tags({"0020000D": STUDY, "00100020": PATIENT_ID})])
        if url.path.endswith("/series"):
            return _json([_tags({"0020000D": STUDY, "0020000E": f"{STUDY}.1", "00080060": self.modality})])
        if url.path.endswith("/instances"):
            asked = parse_qs(url.query).get("SOPInstanceUID")
            found = [*self.given, *self.stored] if asked is None else [uid for uid in asked if uid in self.stored]
            return _json([_tags({"00080018": uid, "00080016": self.sop_class}) for uid in found])
        uid = url.path.rpartition("/")[2]
        given = self.stored[uid] if uid in self.stored else self.given[uid]
        return (200, {"Content-Type": "application/dicom"}, given) if isinstance(given, bytes) else given

    def _store(self, body: bytes) -> Reply:
        for part in body.split(b"Content-Type: application/dicom\r\n\r\n")[1:]:
            file = part.rpartition(b"\r\n--")[0].removesuffix(b"--")
            self.stored[str(dcmread(io.BytesIO(file), stop_before_pixels=True).SOPInstanceUID)] = file
        return _json({})


def _json(answer: object) -> Reply:
    return 200, {"Content-Type": DICOM_JSON}, json.dumps(answer).encode()


def _tags(values: Mapping[str, str]) -> dict[str, object]:
    return {tag: {"vr": "UI", "Value": [value]} for tag, value in values.items() if value}


@contextmanager
def holding(study: HeldStudy) -> Iterator[str]:
    """The root of an archive that has the study."""
    with answering(study.reply) as url:
        yield url
