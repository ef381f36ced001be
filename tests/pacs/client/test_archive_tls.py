"""Mutual TLS with a real Orthanc behind stunnel: only the right certificates on both sides are accepted."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pacs.client.archive import Archive
from pacs.client.configuration import ArchiveConfig
from pacs.errors import ArchiveRefusedError, ArchiveUnavailableError, ConfigurationError, PacsError
from tests.dicom_files import CANARY, run
from tests.orthanc import RunningOrthanc, free_ports
from tests.pacs.archives import instance, raises
from tests.tools import needs
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, needs("Orthanc", "stunnel4", "openssl")]
QUERY = {"PatientName": CANARY}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two authorities, each with a client certificate; the first also has the server's."""
    folder = tmp_path_factory.mktemp("certificates")
    for authority in ("hospital", "stranger"):
        certify(folder, authority)
        certify(folder, f"{authority}-client", authority)
    certify(folder, "server", "hospital")
    return folder


def certify(folder: Path, name: str, by: str | None = None) -> None:
    signer = ["-CA", folder / f"{by}.pem", "-CAkey", folder / f"{by}.key"] if by else []
    run(
        *["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"],
        *["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", *signer],
        *["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"],
    )


@contextmanager
def stunnel(folder: Path, certificates: Path, target: int) -> Iterator[int]:
    """Run stunnel in front of `target` and yield its port; it requires a certificate of the hospital."""
    (port,) = free_ports(1)
    options = {
        "foreground": "yes",
        "pid": "",
        "[archive]": None,
        "accept": f"127.0.0.1:{port}",
        "connect": f"127.0.0.1:{target}",
        "cert": certificates / "server.pem",
        "key": certificates / "server.key",
        "CAfile": certificates / "hospital.pem",
        "verifyChain": "yes",
        "requireCert": "yes",
    }
    lines = [name if value is None else f"{name} = {value}" for name, value in options.items()]
    (folder / "stunnel.conf").write_text("\n".join(lines) + "\n")
    with (folder / "stunnel.log").open("wb") as log:
        process = subprocess.Popen(["stunnel4", str(folder / "stunnel.conf")], stdout=log, stderr=log)
    try:
        wait_until(lambda: listens(port))
        yield port
    finally:
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.fixture
def config(running: RunningOrthanc, certificates: Path, tmp_path: Path) -> Iterator[ArchiveConfig]:
    (tmp_path / "password").write_text(running.password)
    with stunnel(tmp_path, certificates, running.http_port) as port:
        yield ArchiveConfig(
            f"https://127.0.0.1:{port}/dicom-web",
            user=running.user,
            password_file=tmp_path / "password",
            certificate=certificates / "hospital-client.pem",
            key=certificates / "hospital-client.key",
            ca=certificates / "hospital.pem",
            timeout_seconds=5,
        )


def test_the_right_certificates_get_through_both_ways(config: ArchiveConfig) -> None:
    stored = instance(1, 1)
    with Archive("main", config) as archive:
        archive.store([stored])
        assert archive.has_instances(stored.StudyInstanceUID, [stored.SOPInstanceUID])
        assert len(list(archive.retrieve(stored.StudyInstanceUID))) == 1


def error_of(config: ArchiveConfig) -> PacsError:
    with Archive("main", config) as archive, pytest.raises(PacsError) as caught:
        archive.search_studies(QUERY)
    return caught.value


def test_without_or_with_a_strangers_certificate_nothing_is_answered(config: ArchiveConfig, certificates: Path) -> None:
    stranger = certificates / "stranger-client.pem"
    errors = [
        error_of(replace(config, certificate=None, key=None)),
        error_of(replace(config, certificate=stranger, key=stranger.with_suffix(".key"))),
    ]
    # In TLS 1.3 we speak before the server has judged, and its reset may overtake its reason.
    assert {type(error) for error in errors} <= {ArchiveRefusedError, ArchiveUnavailableError}


def test_an_archive_that_the_ca_does_not_vouch_for_is_not_spoken_to(config: ArchiveConfig, certificates: Path) -> None:
    for ca in (certificates / "stranger.pem", None):
        with Archive("main", replace(config, ca=ca)) as archive:
            with raises(ArchiveRefusedError, "main", "CERTIFICATE_VERIFY_FAILED"):
                archive.search_studies(QUERY)
            with raises(ArchiveRefusedError, "main", "CERTIFICATE_VERIFY_FAILED"):
                archive.store([instance(2, 1)])


def test_the_environment_does_not_replace_the_ca(
    config: ArchiveConfig, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificates / "hospital.pem"))
    with Archive("main", replace(config, ca=certificates / "stranger.pem")) as archive, raises(ArchiveRefusedError):
        archive.search_studies(QUERY)


def test_a_certificate_or_key_that_is_gone_or_damaged_is_the_operators(config: ArchiveConfig, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.pem"
    damaged.write_text("no certificate")
    locked = tmp_path / "locked.key"
    run("openssl", "pkey", "-in", config.key, "-aes256", "-passout", "pass:secret", "-out", locked)
    faults: tuple[dict[str, Any], ...] = (
        {"ca": damaged},
        {"certificate": damaged},
        {"key": damaged},
        {"key": locked},
        {"ca": tmp_path / "gone"},
    )
    for changed in faults:
        with raises(ConfigurationError, "main"):
            Archive("main", replace(config, **changed))


def test_a_handshake_that_is_broken_off_is_unavailable(config: ArchiveConfig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closing = threading.Thread(target=close_after_hello, args=(server,))
        closing.start()
        url = f"https://127.0.0.1:{server.getsockname()[1]}/"
        with Archive("main", replace(config, url=url)) as archive, raises(ArchiveUnavailableError, "main", "closed"):
            archive.search_studies(QUERY)
        closing.join()


def close_after_hello(server: socket.socket) -> None:
    connection, _ = server.accept()
    with connection:
        connection.recv(1 << 16)


def test_tls_without_an_archive_behind_it_is_unavailable(config: ArchiveConfig, running: RunningOrthanc) -> None:
    running.kill()
    with Archive("main", config) as archive, raises(ArchiveUnavailableError, "main"):
        archive.search_studies(QUERY)
    running.start()
