"""A folder and a routing rule go in, a real Orthanc with DICOMweb on free ports of this machine comes out."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests

from tests.waiting import HUNG_SECONDS, wait_until

DICOMWEB_PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
USERS = {"archivist": "archivist-password"}
RULE = Path(__file__).resolve().parent.parent / "docs" / "orthanc.lua"
PEER, MODALITY = "osteon", "STORESCU"
STABLE_SECONDS = 1


@dataclass(frozen=True)
class RunningOrthanc:
    """An Orthanc of one test, with storage and ports that outlive its process.

    Attributes:
        url: its DICOMweb root.
        dicom_port: takes C-STORE to the AET `ARCHIVE` by the AET `STORESCU`.
    """

    url: str
    user: str
    password: str
    http_port: int
    dicom_port: int
    folder: Path
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list, repr=False)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The latest one, running or not."""
        return self._processes[-1]

    def kill(self) -> None:
        """As by a power cut: kill -9."""
        for process in self._processes:
            process.kill()
            process.wait()

    def start(self) -> None:
        """Start on the same storage and ports, and wait until it answers."""
        with (self.folder / "orthanc.log").open("ab") as log:
            program = shutil.which("Orthanc", path=f"{os.environ['PATH']}:/usr/sbin") or "Orthanc"
            started = subprocess.Popen([program, "orthanc.json"], cwd=self.folder, stdout=log, stderr=log)
        self._processes.append(started)
        wait_until(self._answers, "an answer of Orthanc")

    def studies(self) -> list[str]:
        """Study Instance UIDs of all studies."""
        return [study["MainDicomTags"]["StudyInstanceUID"] for study in self.rest("/studies?expand")]

    def instances(self, study_uid: str) -> list[str]:
        """SOP Instance UIDs of a study; none where it is missing."""
        query = {"Level": "Instance", "Expand": True, "Query": {"StudyInstanceUID": study_uid}}
        found = self.rest("/tools/find", query)
        return [instance["MainDicomTags"]["SOPInstanceUID"] for instance in found]

    def delete_instance(self, instance_uid: str) -> None:
        (found,) = self.rest("/tools/find", {"Level": "Instance", "Query": {"SOPInstanceUID": instance_uid}})
        self.rest(f"/instances/{found}", method="DELETE")

    def rest(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """What Orthanc's own interface answers: to a POST where there is a body, else to a GET, if nothing is said."""
        url, who = f"http://127.0.0.1:{self.http_port}{path}", (self.user, self.password)
        method = method or ("GET" if body is None else "POST")
        response = requests.request(method, url, json=body, auth=who, timeout=HUNG_SECONDS)
        response.raise_for_status()
        return response.json()

    def _answers(self) -> bool:
        assert self.process.poll() is None, f"Orthanc ended:\n{(self.folder / 'orthanc.log').read_text()}"
        try:
            return bool(self.rest("/system"))
        except requests.ConnectionError:
            return False


@contextmanager
def orthanc(
    folder: Path,
    *,
    lua: str | None = None,
    forward_to: str | None = None,
    http_port: int | None = None,
    users: Mapping[str, str] = USERS,
) -> Iterator[RunningOrthanc]:
    """Run Orthanc with its storage in `folder`, and kill it in the end.

    Args:
        lua: a routing rule's text, such as `routing_rule()`.
        forward_to: DICOMweb root that the rule may send to; `http://USER:PASSWORD@HOST/...` for HTTP Basic.
        users: who may ask, with passwords; the first is the one that the tests use.
    """
    folder.mkdir(parents=True, exist_ok=True)
    user, password = next(iter(users.items()))
    ports = free_ports(2)
    http = http_port or ports[0]
    configuration = _configuration(http, ports[1], users, forward_to)
    if lua is not None:
        (folder / "rule.lua").write_text(lua)
        configuration["LuaScripts"] = ["rule.lua"]
    (folder / "orthanc.json").write_text(json.dumps(configuration, indent=1))
    running = RunningOrthanc(f"http://127.0.0.1:{http}/dicom-web", user, password, http, ports[1], folder)
    try:
        running.start()
        yield running
    finally:
        running.kill()


def archives_at(folder: Path, running: RunningOrthanc, name: str = "main") -> Path:
    """The archives' file, as an operator writes it."""
    (folder / "password").write_text(running.password)
    file = folder / "archives.toml"
    file.write_text(f'[{name}]\nurl = "{running.url}"\nuser = "{running.user}"\npassword_file = "password"\n')
    return file


def routing_rule() -> str:
    """Lua that sends the radiographs of each stable study to `forward_to` by STOW-RS, once."""
    return RULE.read_text()


def _configuration(http: int, dicom: int, users: Mapping[str, str], forward_to: str | None) -> dict[str, Any]:
    """Orthanc 1.10 knows no address to bind to, and listens on all.

    What limits it is that it refuses other machines, over HTTP (RemoteAccessAllowed) and over DICOM (the one host of
    DicomModalities), and asks for a password. Only a network namespace would do better, and the service under test
    would have to live in it.
    """
    return {
        "Name": "ARCHIVE",
        "StorageDirectory": "storage",
        "IndexDirectory": "storage",
        "Plugins": [DICOMWEB_PLUGIN],
        "HttpPort": http,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": dict(users),
        "DicomAet": "ARCHIVE",
        "DicomPort": dicom,
        "DicomAlwaysAllowEcho": False,
        "DicomAlwaysAllowStore": False,
        "DicomCheckModalityHost": True,
        "DicomModalities": {"local": [MODALITY, "127.0.0.1", dicom]},
        "StableAge": STABLE_SECONDS,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Servers": _servers(forward_to)},
    }


def _servers(forward_to: str | None) -> dict[str, dict[str, str]]:
    if forward_to is None:
        return {}
    parts = urlsplit(forward_to)
    url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    server = {"Url": url.rstrip("/") + "/"}
    if parts.username is not None:
        server |= {"Username": parts.username, "Password": parts.password or ""}
    return {PEER: server}


def free_ports(count: int) -> list[int]:
    """Held together while they are chosen, so that they differ."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]
