"""What is sent by C-STORE is in a job when the sender is told so."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.uid import JPEG2000Lossless

from app.settings import Settings
from pacs.jobs import Jobs
from pacs.sealing import Seal
from tests.app.test_stow import hand
from tests.conftest import ROOT
from tests.dicom_files import CANARY, dicom, run
from tests.orthanc import free_ports
from tests.phantoms import draw_phantom
from tests.tools import needs

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
    for number, data in enumerate((hand(1), hand(2), hand(3, Modality="CT"))):
        (tmp_path / f"{number}.dcm").write_bytes(data)
    run("echoscu", "127.0.0.1", port)
    run(STORESCU, "-aec", "OSTEON", "127.0.0.1", port, *sorted(tmp_path.glob("?.dcm")))
    (job,) = jobs.latest(10)
    assert (job.source, job.state, job.instances) == ("store", "waiting", 2)
    assert CANARY not in (tmp_path / "log").read_text()


def test_compressed_radiograph_comes_as_it_was_sent(port: int, jobs: Jobs, tmp_path: Path) -> None:
    file = tmp_path / "1.dcm"
    file.write_bytes(dicom(draw_phantom(seed=1), 8, JPEG2000Lossless))
    run(STORESCU, "-xv", "127.0.0.1", port, file)
    (job,) = jobs.latest(10)
    (instance,) = jobs.instances(job.id)
    assert JPEG2000Lossless.encode() in instance.data[:400]
