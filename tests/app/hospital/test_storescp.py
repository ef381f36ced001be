"""What is sent by C-STORE is in a job when the sender is told so."""

import io
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom import AE
from pynetdicom.association import Association

from app.hospital.gateway import Hospital
from app.replica import Replica, assemble
from app.settings import Settings
from pacs.queue.encryption import Cipher
from pacs.queue.jobs import Jobs
from tests.app.api.test_stow_rs import STUDY, hand, reasons, related, stow
from tests.app.conftest import metric, serving
from tests.conftest import ROOT
from tests.dicom_files import CANARY, dataset_of, dicom, run
from tests.orthanc import free_ports
from tests.phantoms import draw_phantom
from tests.tools import needs
from tests.waiting import HUNG_SECONDS, wait_until

CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
STORESCU = "/usr/bin/storescu"
"""dcmtk's by its path: pynetdicom brings a program of the same name."""
pytestmark = [pytest.mark.slow, needs("dcmj2pnm")]


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(f"sqlite:///{tmp_path / 'jobs.sqlite'}", Cipher.from_key_file(tmp_path / "key"), 1 << 30)


@dataclass(frozen=True)
class Node:
    """A node in a process of its own."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def peak_mib(self) -> float:
        """Of memory, since it began."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024


@contextmanager
def listening(settings: Settings, folder: Path, **changed: object) -> Iterator[Node]:
    number = free_ports(1)[0]
    environment = os.environ | {
        "OSTEON_CHECKPOINT": str(settings.checkpoint),
        "OSTEON_JOBS": f"sqlite:///{folder / 'jobs.sqlite'}",
        "OSTEON_JOBS_KEY": str(folder / "key"),
        "OSTEON_DICOM_PORT": str(number),
        **{f"OSTEON_{name.upper()}": str(value) for name, value in changed.items()},
    }
    command = [sys.executable, "-m", "app.hospital.storescp"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log)
    try:
        while not listens(number):
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield Node(number, process, folder / "log")
        process.terminate()
        assert process.wait(HUNG_SECONDS) == 0
    finally:
        process.kill()
        process.wait()


def test_port_in_use_is_named_with_the_setting_that_changes_it(settings: Settings, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        environment = os.environ | {
            "OSTEON_CHECKPOINT": str(settings.checkpoint),
            "OSTEON_JOBS": f"sqlite:///{tmp_path / 'jobs.sqlite'}",
            "OSTEON_JOBS_KEY": str(tmp_path / "key"),
            "OSTEON_DICOM_PORT": str(other.getsockname()[1]),
        }
        command = [sys.executable, "-m", "app.hospital.storescp"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot be opened" in done.stderr.splitlines()[-1]
    assert "OSTEON_DICOM_PORT" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.fixture
def port(settings: Settings, jobs: Jobs, tmp_path: Path) -> Iterator[int]:
    with listening(settings, tmp_path) as node:
        yield node.port


def listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def test_radiographs_are_in_their_studys_job_and_nothing_else_is(port: int, jobs: Jobs, tmp_path: Path) -> None:
    for number, data in enumerate((hand(1), hand(2), hand(3, Modality="OT", SOPClassUID=CAPTURE))):
        (tmp_path / f"{number}.dcm").write_bytes(data)
    run("echoscu", "127.0.0.1", port)
    run(STORESCU, "-aec", "OSTEON", "127.0.0.1", port, *sorted(tmp_path.glob("?.dcm")))
    (job,) = jobs.repository.latest(10)
    assert (job.source, job.state, job.instances) == ("store", "waiting", 2)
    assert CANARY not in (tmp_path / "log").read_text()


def statuses(port: int, *files: bytes) -> list[int]:
    """Of the C-STORE responses, one for each file."""
    entity = AE("STORESCU")
    for each in (dataset_of(file) for file in files):
        entity.add_requested_context(each.SOPClassUID, each.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port)
    assert association.is_established
    try:
        return [int(association.send_c_store(dataset_of(file)).Status) for file in files]
    finally:
        association.release()


def test_second_patient_and_other_pixels_get_a_status_of_failure(port: int, jobs: Jobs, tmp_path: Path) -> None:
    other_patient = hand(2, PatientID="SECOND-2", PatientName="Second^Bert")
    other_pixels = dicom(
        draw_phantom(seed=9), StudyInstanceUID=STUDY, SeriesInstanceUID=f"{STUDY}.1", SOPInstanceUID=f"{STUDY}.1.1"
    )
    assert statuses(port, hand(1), other_patient, other_pixels, hand(1)) == [0, 0xA900, 0x0111, 0]
    (job,) = jobs.repository.latest(10)
    assert [each.instance_uid for each in jobs.repository.instances(job.id)] == [f"{STUDY}.1.1"]
    assert jobs.repository.refusals() == {"other patient": 1, "other content": 1}
    log = (tmp_path / "log").read_text()
    assert log.count("was refused: other") == 2
    assert [word for word in ("Second", "SECOND-2", CANARY, "CANARY-4711") if word in log] == []


@pytest.mark.parametrize("node_first", [True, False])
def test_two_patients_are_told_apart_whichever_way_they_come(
    port: int, jobs: Jobs, service: Replica, node_first: bool
) -> None:
    hospital = Hospital(jobs, {}, None, timedelta(seconds=60))
    other = hand(2, PatientID="SECOND-2", PatientName="Second^Bert")
    with serving(assemble(service.settings, service.predictor.bundle, hospital)) as client:
        if node_first:
            assert statuses(port, hand(1)) == [0]
            assert reasons(stow(client, related(other))) == [0xA900]
        else:
            assert stow(client, related(hand(1))).status_code == HTTPStatus.OK
            assert statuses(port, other) == [0xA900]
        assert stow(client, related(hand(3))).status_code == HTTPStatus.OK
        assert metric(client, 'osteon_refused_instances{reason="other patient"}') == 1
    (job,) = jobs.repository.latest(10)
    assert [each.instance_uid[-1] for each in jobs.repository.instances(job.id)] == ["1", "3"]


def test_same_radiograph_by_c_store_and_stow_is_one(port: int, jobs: Jobs, service: Replica) -> None:
    hospital = Hospital(jobs, {}, None, timedelta(seconds=60))
    with serving(assemble(service.settings, service.predictor.bundle, hospital)) as client:
        assert statuses(port, hand(1)) == [0]
        assert stow(client, related(hand(1))).status_code == HTTPStatus.OK
    assert [job.instances for job in jobs.repository.latest(10)] == [1]


def test_compressed_radiograph_comes_as_it_was_sent(port: int, jobs: Jobs, tmp_path: Path) -> None:
    file = tmp_path / "1.dcm"
    file.write_bytes(dicom(draw_phantom(seed=1), 8, JPEG2000Lossless))
    run(STORESCU, "-xv", "127.0.0.1", port, file)
    (job,) = jobs.repository.latest(10)
    (instance,) = jobs.repository.instances(job.id)
    assert JPEG2000Lossless.encode() in instance.data[:400]


DX, PRIVATE = "1.2.840.10008.5.1.4.1.1.1.1", "1.3.12.2.1107.5.9.1"
RETIRED = "1.2.840.10008.5.1.4.1.1.6"
"""Ultrasound images of before 1993, which no list of storage classes has any more."""
PRIVATE_SYNTAX = "1.2.276.0.50.1.2.1"
SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
Context = tuple[str, Sequence[str]]


def associated(port: int, *contexts: Context) -> Association:
    caller = AE("MODALITY")
    for sop_class, syntaxes in contexts or ((DX, [ExplicitVRLittleEndian]),):
        caller.add_requested_context(sop_class, list(syntaxes))
    return caller.associate("127.0.0.1", port)


def radiograph(number: int = 1, private_bytes: int = 0, **tags: Any) -> Dataset:
    dataset = dcmread(io.BytesIO(hand(number, **tags)))
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    if private_bytes:
        dataset.add_new(0x00090010, "LO", "OWNER")
        dataset.add_new(0x00091001, "OB", bytes(private_bytes))
    return dataset


def test_data_set_over_the_limit_is_refused_without_being_held_and_the_next_is_taken(
    settings: Settings, jobs: Jobs, tmp_path: Path
) -> None:
    with listening(settings, tmp_path, max_upload_mib=1) as node:
        association = associated(node.port)
        assert association.send_c_store(radiograph(1)).Status == SUCCESS
        before = node.peak_mib()
        refused = association.send_c_store(radiograph(2, private_bytes=200 << 20))
        assert (refused.Status, refused.ErrorComment) == (OUT_OF_RESOURCES, "The instance has more than 1 MiB.")
        assert node.peak_mib() - before < 50
        assert association.send_c_store(radiograph(3)).Status == SUCCESS
        association.release()
    assert [job.instances for job in jobs.repository.latest(10)] == [2]


def test_data_sets_of_all_associations_together_are_bounded(settings: Settings, jobs: Jobs, tmp_path: Path) -> None:
    with listening(settings, tmp_path, max_upload_mib=50, max_inflight_mib=2) as node:
        association = associated(node.port)
        for _ in range(3):
            refused = association.send_c_store(radiograph(1, private_bytes=3 << 20))
            assert (refused.Status, refused.ErrorComment) == (
                OUT_OF_RESOURCES,
                "Too many bytes are being received; send it again.",
            )
            assert association.send_c_store(radiograph(1, private_bytes=1 << 20)).Status == SUCCESS
        association.release()


def pour(caller: socket.socket) -> None:
    for _ in range(100):
        caller.sendall(bytes(1 << 20))


@pytest.mark.parametrize("kind", [1, 4])
def test_pdu_that_announces_4_gib_is_refused_before_it_is_read(kind: int, settings: Settings, tmp_path: Path) -> None:
    with listening(settings, tmp_path) as node:
        run("echoscu", "127.0.0.1", node.port)
        before = node.peak_mib()
        with socket.create_connection(("127.0.0.1", node.port), timeout=HUNG_SECONDS) as caller:
            caller.sendall(struct.pack(">BBL", kind, 0, 0xFFFFFFF0))
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                pour(caller)
        assert node.peak_mib() - before < 20
        assert "announced a PDU of 4294967280 bytes" in node.log.read_text()
        run("echoscu", "127.0.0.1", node.port)


def test_silent_callers_make_room_for_one_that_sends(settings: Settings, jobs: Jobs, tmp_path: Path) -> None:
    with listening(settings, tmp_path, dicom_associations=6) as node:
        silent = [associated(node.port) for _ in range(3)]
        dumb = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(2)]
        slow = socket.create_connection(("127.0.0.1", node.port))
        slow.sendall(struct.pack(">BBL", 1, 0, 1000) + b"\0")
        time.sleep(2.5)  # for as long as nobody has to make room
        for number in range(1, 7):
            association = associated(node.port)
            assert association.is_established
            assert association.send_c_store(radiograph(number)).Status == SUCCESS
        association.release()
        run("echoscu", "127.0.0.1", node.port)
        for each in (*dumb, slow):
            each.close()
        assert not any(each.is_established for each in silent)


def test_connections_that_close_without_a_word_leave_nothing_behind(settings: Settings, tmp_path: Path) -> None:
    with listening(settings, tmp_path, dicom_associations=2, dicom_idle_seconds=10 * HUNG_SECONDS) as node:
        for _ in range(20):
            socket.create_connection(("127.0.0.1", node.port)).close()
        echo = ["echoscu", "127.0.0.1", str(node.port)]
        wait_until(lambda: subprocess.run(echo, stderr=subprocess.DEVNULL).returncode == 0, "an answer to an echo")


def test_silent_association_ends_after_the_set_time(settings: Settings, tmp_path: Path) -> None:
    with listening(settings, tmp_path, dicom_idle_seconds=0.5) as node:
        association = associated(node.port)
        with socket.create_connection(("127.0.0.1", node.port), timeout=HUNG_SECONDS) as dumb:
            assert dumb.recv(1) == b""
        association.join(HUNG_SECONDS)
        assert not association.is_alive()


@pytest.mark.parametrize("sop_class", [PRIVATE, RETIRED])
def test_private_and_unknown_classes_are_accepted_and_left_alone(sop_class: str, port: int, jobs: Jobs) -> None:
    association = associated(port, (sop_class, [ExplicitVRLittleEndian]), (DX, [ExplicitVRLittleEndian]))
    assert len(association.accepted_contexts) == 2
    assert association.send_c_store(radiograph(1, Modality="OT", SOPClassUID=sop_class)).Status == SUCCESS
    assert association.send_c_store(radiograph(2)).Status == SUCCESS
    association.release()
    assert [job.instances for job in jobs.repository.latest(10)] == [1]
    assert sum(jobs.repository.left_alone().values()) == 1


def test_private_class_in_a_private_syntax_is_accepted_and_left_alone(port: int, jobs: Jobs) -> None:
    association = associated(port, (PRIVATE, [PRIVATE_SYNTAX]))
    assert [context.transfer_syntax for context in association.accepted_contexts] == [[PRIVATE_SYNTAX]]
    association.release()


def test_known_syntax_is_chosen_where_a_private_one_is_offered_too(port: int) -> None:
    association = associated(
        port, (DX, [PRIVATE_SYNTAX, JPEG2000Lossless]), (PRIVATE, [PRIVATE_SYNTAX, JPEG2000Lossless])
    )
    assert [context.transfer_syntax for context in association.accepted_contexts] == [[JPEG2000Lossless]] * 2
    association.release()
    only_private = associated(port, (DX, [PRIVATE_SYNTAX]), (DX, [ExplicitVRLittleEndian]))
    assert [context.transfer_syntax for context in only_private.accepted_contexts] == [[ExplicitVRLittleEndian]]
    only_private.release()


@pytest.mark.parametrize("modality", ["DR", "RG", "OT", None])
def test_radiograph_of_an_unsure_modality_is_taken(modality: str | None, port: int, jobs: Jobs) -> None:
    association = associated(port)
    assert association.send_c_store(radiograph(1, Modality=modality)).Status == SUCCESS
    association.release()
    assert [job.instances for job in jobs.repository.latest(10)] == [1]
