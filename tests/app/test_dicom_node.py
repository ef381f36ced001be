"""What is sent by C-STORE is in a job when the sender is told so."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path

import pytest
from pydicom.uid import JPEG2000Lossless
from pynetdicom import AE

from app.hospital import Hospital
from app.service import Service, assemble
from app.settings import Settings
from pacs.jobs import Jobs
from pacs.sealing import Seal
from tests.app.conftest import metric, serving
from tests.app.test_stow import STUDY, hand, reasons, related, stow
from tests.conftest import ROOT
from tests.dicom_files import CANARY, dicom, run
from tests.orthanc import free_ports
from tests.phantoms import draw_phantom
from tests.tools import needs
from xray.dicom import dataset_of

STORESCU = "/usr/bin/storescu"
"""dcmtk's by its path: pynetdicom brings a program of the same name."""
pytestmark = needs("dcmj2pnm")


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    return Jobs(f"sqlite:///{tmp_path / 'jobs.sqlite'}", Seal.of_file(tmp_path / "key"), 1 << 30)


@pytest.fixture
def port(settings: Settings, jobs: Jobs, tmp_path: Path) -> Iterator[int]:
    """Where a node in a process of its own listens."""
    number = free_ports(1)[0]
    environment = os.environ | {
        "OSTEON_CHECKPOINT": str(settings.checkpoint),
        "OSTEON_JOBS": f"sqlite:///{tmp_path / 'jobs.sqlite'}",
        "OSTEON_JOBS_KEY": str(tmp_path / "key"),
        "OSTEON_DICOM_PORT": str(number),
    }
    command = [sys.executable, "-m", "app.dicom_node"]
    with (tmp_path / "log").open("wb") as log:
        node = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log)
    while not listens(number):
        assert node.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.1)
    yield number
    node.terminate()
    assert node.wait(20) == 0


def listens(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def test_radiographs_are_in_their_studys_job_and_nothing_else_is(port: int, jobs: Jobs, tmp_path: Path) -> None:
    for number, data in enumerate((hand(1), hand(2), hand(3, Modality="OT"))):
        (tmp_path / f"{number}.dcm").write_bytes(data)
    run("echoscu", "127.0.0.1", port)
    run(STORESCU, "-aec", "OSTEON", "127.0.0.1", port, *sorted(tmp_path.glob("?.dcm")))
    (job,) = jobs.latest(10)
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
    (job,) = jobs.latest(10)
    assert [each.instance_uid for each in jobs.instances(job.id)] == [f"{STUDY}.1.1"]
    assert jobs.refusals() == {"other patient": 1, "other content": 1}
    log = (tmp_path / "log").read_text()
    assert log.count("was refused: other") == 2
    assert [word for word in ("Second", "SECOND-2", CANARY, "CANARY-4711") if word in log] == []


@pytest.mark.parametrize("node_first", [True, False])
def test_two_patients_are_told_apart_whichever_way_they_come(
    port: int, jobs: Jobs, service: Service, node_first: bool
) -> None:
    hospital = Hospital(jobs, {}, None, timedelta(seconds=60))
    other = hand(2, PatientID="SECOND-2", PatientName="Second^Bert")
    with serving(assemble(service.settings, service.generation, hospital)) as client:
        if node_first:
            assert statuses(port, hand(1)) == [0]
            assert reasons(stow(client, related(other))) == [0xA900]
        else:
            assert stow(client, related(hand(1))).status_code == HTTPStatus.OK
            assert statuses(port, other) == [0xA900]
        assert stow(client, related(hand(3))).status_code == HTTPStatus.OK
        assert metric(client, 'osteon_refused_instances{reason="other patient"}') == 1
    (job,) = jobs.latest(10)
    assert [each.instance_uid[-1] for each in jobs.instances(job.id)] == ["1", "3"]


def test_same_radiograph_by_c_store_and_stow_is_one(port: int, jobs: Jobs, service: Service) -> None:
    hospital = Hospital(jobs, {}, None, timedelta(seconds=60))
    with serving(assemble(service.settings, service.generation, hospital)) as client:
        assert statuses(port, hand(1)) == [0]
        assert stow(client, related(hand(1))).status_code == HTTPStatus.OK
    assert [job.instances for job in jobs.latest(10)] == [1]


def test_compressed_radiograph_comes_as_it_was_sent(port: int, jobs: Jobs, tmp_path: Path) -> None:
    file = tmp_path / "1.dcm"
    file.write_bytes(dicom(draw_phantom(seed=1), 8, JPEG2000Lossless))
    run(STORESCU, "-xv", "127.0.0.1", port, file)
    (job,) = jobs.latest(10)
    (instance,) = jobs.instances(job.id)
    assert JPEG2000Lossless.encode() in instance.data[:400]
