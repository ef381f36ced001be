"""The service runs where FIPS is enforced: none of its processes loads OpenSSL 1.x."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import imagecodecs
import numpy as np
import pytest
from pydicom.uid import JPEGLosslessSV1

from app.settings import Settings
from tests.app.conftest import png
from tests.app.runtime.test_shutdown import free_port, health, process
from tests.conftest import ROOT
from tests.dicom_files import dicom
from tests.phantoms import draw_phantom
from tests.waiting import HUNG_SECONDS

pytestmark = pytest.mark.slow

LIBRARY = re.compile(r"\S*lib(?:ssl|crypto)\S*")
FORBIDDEN = re.compile(r"\.so\.1\b|\.1\.1(?:\.|$)")
PHANTOM = draw_phantom(seed=7)
FILES = {
    "PNG": png(PHANTOM),
    "JPEG of 12 bits, in a process apart": bytes(
        imagecodecs.jpeg_encode(PHANTOM.astype(np.uint16) << 4, bitspersample=12)
    ),
    "compressed DICOM, in a process apart": dicom(PHANTOM.astype(np.uint16) << 4, 12, JPEGLosslessSV1),
}


@pytest.fixture
def _fips(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """OpenSSL 1.1.1 ends the process that loads it under this setting unless it was built for FIPS; later ones do not
    know it. The service also has a worker of jobs, which writes results."""
    monkeypatch.setenv("OPENSSL_FORCE_FIPS_MODE", "1")
    monkeypatch.setenv("OSTEON_JOBS", f"sqlite:///{tmp_path / 'jobs.sqlite'}")
    monkeypatch.setenv("OSTEON_JOBS_KEY", str(tmp_path / "key"))
    monkeypatch.setenv("OSTEON_SCOPE", "off")


def family(pid: int) -> list[int]:
    """A process and all that it started, and those started by these."""
    children = [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
    return [pid, *(one for child in children for one in family(child))]


def old_libraries(pid: int) -> set[str]:
    """OpenSSL libraries of the 1.x series that a process has mapped."""
    mapped = set(LIBRARY.findall(Path(f"/proc/{pid}/maps").read_text()))
    return {library for library in mapped if FORBIDDEN.search(library)}


@pytest.mark.usefixtures("_fips")
def test_service_answers_under_fips_and_none_of_its_processes_holds_an_old_openssl(settings: Settings) -> None:
    port = free_port()
    with process(settings, port) as running:
        while health(port) != 0:
            assert running.poll() is None
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=HUNG_SECONDS, trust_env=False) as client:
            for name, data in FILES.items():
                reply = client.post("/classify", files={"file": data})
                assert reply.status_code == httpx.codes.OK, (name, reply.text)
                assert client.post("/cam", files={"file": data}).status_code == httpx.codes.OK
        processes = family(running.pid)
        assert len(processes) > 1, "what is decoded apart has a process of its own"
        assert {pid: found for pid in processes if (found := old_libraries(pid))} == {}


@pytest.mark.usefixtures("_fips")
@pytest.mark.parametrize(
    "module",
    [
        "app.hospital.storescp",
        "app.hospital.worker",
        "pacs.results.capture.secondary_capture",
        "pacs.results.report.structured_report",
        "index_builder.crawl",
        "xray.images.decoding.decoder_worker",
    ],
)
def test_part_of_the_product_loads_under_fips_without_opencv(module: str) -> None:
    code = f"import {module}, sys; sys.exit('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ, check=False).returncode == 0
