"""A patient who is known nowhere else goes through one failure after the other, and stays unknown."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from app.settings import Settings
from tests.app.api.test_stow_rs import hand, related, stow
from tests.app.hospital.test_gateway import CAPTURE, REPORT, environment_of, process, put, results, study
from tests.app.hospital.test_storescp import STORESCU, listens
from tests.conftest import ROOT
from tests.dicom_files import CANARY, inflating
from tests.orthanc import RunningOrthanc, archives_at, free_ports, orthanc
from tests.tools import needs
from tests.waiting import HUNG_SECONDS, wait_until

pytestmark = [pytest.mark.slow, needs("Orthanc"), needs("dcmj2pnm")]
SECRETS = (b"canary^", b"canary-", b"19010203")
"""Parts of the patient's name, identifier, accession number, birth date and of the file's name, in lower case."""
FILE_NAME = f"{CANARY} 4711.dcm"
NAMED = {"PatientName": CANARY, "PatientID": "CANARY-4711"}


def faulty() -> list[bytes]:
    """The patient's file, each time with another fault."""
    whole = hand(1)
    return [
        whole[: len(whole) // 2],
        whole[:900],
        hand(1, Modality="CT"),
        hand(1, BodyPartExamined="CHEST"),
        hand(1, NumberOfFrames=2),
        whole.replace(b"MONOCHROME2", b"Canary^Bird"),
        whole.replace(b"DICM", b"MCID"),
        inflating(hand(1, syntax=DeflatedExplicitVRLittleEndian), 64 << 20),
    ]


def failing(client: httpx.Client) -> Iterator[httpx.Response]:
    """What callers do with the patient and should not, and what is said to them."""
    for file in faulty():
        for path in ("/classify", "/cam", "/analyze"):
            yield client.post(path, files={"file": (FILE_NAME, file)})
    yield stow(client, related(*faulty()))
    yield stow(client, related(hand(1)), path="/1.2.3")
    yield stow(client, related(hand(1))[:-400])
    image = {"file": (FILE_NAME, hand(1))}
    yield client.post("/retrieve", params={"exclude_study": CANARY, **NAMED}, files=image)
    for name in ("threshold", "k", "body_part", "label", "per_study", "style"):
        yield client.post("/cam" if name == "style" else "/analyze", params={name: CANARY}, files=image)
    for header in ("Content-Type", "X-Deadline-Ms"):
        yield client.post("/classify", headers={header: CANARY}, content=b"nothing")
    yield client.post("/classify", files={CANARY: (FILE_NAME, hand(1))})
    yield client.get(f"/jobs/{CANARY}", params=NAMED)
    yield client.get(f"/dicom-web/studies/{CANARY}", params=NAMED)
    yield client.post(f"/dicom-web/studies/{CANARY}/analyze", params={"pacs": "main", **NAMED})
    yield client.post("/dicom-web/studies/1.2.3/analyze", params={"pacs": CANARY})


@contextmanager
def dicom_node(environment: dict[str, str], log: Path) -> Iterator[int]:
    (port,) = free_ports(1)
    with log.open("ab") as stream:
        command = [sys.executable, "-m", "app.hospital.storescp"]
        own = environment | {"OSTEON_DICOM_PORT": str(port)}
        node = subprocess.Popen(command, cwd=ROOT, env=own, stdout=stream, stderr=stream)
    try:
        wait_until(lambda: listens(port))
        yield port
    finally:
        node.kill()
        node.wait()


def store(port: int, folder: Path, *files: bytes) -> None:
    """Send by C-STORE whatever dcmtk is willing to send."""
    for number, file in enumerate(files):
        (folder / f"{number}.dcm").write_bytes(file)
        command = [STORESCU, "127.0.0.1", str(port), str(folder / f"{number}.dcm")]
        subprocess.run(command, capture_output=True, timeout=HUNG_SECONDS, check=False)


def test_patient_is_in_nothing_that_the_service_wrote_or_said_through_all_its_failures(
    settings: Settings, tmp_path: Path
) -> None:
    state, sent = tmp_path / "state", tmp_path / "sent"
    sent.mkdir()
    uid = study(1)
    with orthanc(tmp_path / "orthanc") as archive:
        environment = environment_of(settings, archives_at(tmp_path, archive), state)
        environment |= {"TMPDIR": str(state), "XDG_CACHE_HOME": str(state / "cache"), "OSTEON_DECODE_SECONDS": "5"}
        said = through_all_failures(environment, archive, state, sent, uid)
        assert results(archive, uid) == [CAPTURE, REPORT]
    written = {str(file): file.read_bytes() for file in state.rglob("*") if file.is_file()}
    assert {"log", "jobs.sqlite", "key"} <= {Path(name).name for name in written}
    for place, content in {**written, **said}.items():
        for secret in SECRETS:
            assert secret not in content.lower(), f"{secret!r} is in {place}"


def through_all_failures(
    environment: dict[str, str], archive: RunningOrthanc, state: Path, sent: Path, uid: str
) -> dict[str, bytes]:
    """Bad files, bad calls, a bad sender, an archive that is away, a service that is killed; then all is well again."""
    log, said = state / "log", {}
    base = f"http://127.0.0.1:{environment['OSTEON_PORT']}"
    with process(environment, log) as running, httpx.Client(base_url=base, timeout=HUNG_SECONDS) as client:
        for number, reply in enumerate(failing(client)):
            assert reply.is_client_error or reply.status_code == HTTPStatus.ACCEPTED, (number, reply.text)
            said[f"reply {number}"] = reply.content + str(reply.headers).encode()
        with dicom_node(environment, log) as port:
            store(port, sent, *faulty()[:-1])  # dcmtk would inflate the last one itself
        archive.kill()
        job = stow(client, related(hand(1, uid))).headers["x-jobs"]
        wait_until(lambda: client.get(f"/jobs/{job}").json()["reason"] is not None)
        said |= told_by(client, "while the archive is away")
        running.send_signal(signal.SIGKILL)
        running.wait()
    archive.start()
    with process(environment, log), httpx.Client(base_url=base, timeout=HUNG_SECONDS) as client:
        put(archive, [hand(1, uid)])
        wait_until(lambda: client.get(f"/jobs/{job}").json()["state"] == "delivered")
        said |= told_by(client, "in the end")
    return said


def told_by(client: httpx.Client, when: str) -> dict[str, bytes]:
    """What anybody may ask of a service."""
    return {f"{path} {when}": client.get(path).content for path in ("/metrics", "/jobs", "/info", "/health/ready")}
