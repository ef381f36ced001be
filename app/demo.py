"""Demonstration (`python -m app.demo`): start the service, send it one study, print the answers and keep serving."""

import importlib.resources
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import tyro
import uvicorn

from app.main import create_app
from app.replica import load_replica
from app.runtime.connections import server_config
from app.settings import read_settings
from xray.errors import XrayError

ROOT = Path(__file__).resolve().parent.parent
DATASETS = ("data/*/valid", "../shared/*/valid")
"""Folders in a checkout that may have real radiographs in MURA layout, relative to its root."""
SAMPLE = Path(str(importlib.resources.files("data_store"))) / "data" / "RG3_J2KR.dcm"
"""A computed radiography image of a lower leg from `pydicom-data`, whose package is named `data_store`."""
OVERLAY = ROOT / ".osteon-demo" / "overlay.png"
TIMEOUT_SECONDS = 60
"""Timeout of one request, in seconds; the first one on a slow CPU takes several."""
POLL_SECONDS = 0.05
"""Interval between two checks whether the server has started, in seconds."""


@dataclass(frozen=True)
class DemoOptions:
    """Command line options of the demonstration."""

    image: Path | None = None
    """Radiograph to send; without it, a study of a local dataset, or else the radiograph of pydicom-data."""
    port: int = 8000
    """Port to listen on."""
    exit: bool = False
    """Stop after printing the answers."""


def main() -> None:
    """Run the demonstration."""
    options = tyro.cli(DemoOptions, prog="make demo")
    images = [options.image] if options.image else find_dataset_study() or [SAMPLE]
    missing = [str(image) for image in images if not image.is_file()]
    if missing:
        sys.exit(f"{missing[0]} does not exist; pass the file of a radiograph.")
    try:
        app = create_app(load_replica(read_settings(port=options.port, scope="flag")))
    except XrayError as error:
        sys.exit(f"osteon refuses to start: {error}")
    server = uvicorn.Server(server_config(app, port=options.port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            sys.exit(f"port {options.port} cannot be opened; choose another: make demo PORT=8001")
        time.sleep(POLL_SECONDS)
    address = f"http://127.0.0.1:{options.port}"
    print_answers(images, address)
    if not options.exit:
        print(f"serving on {address} (docs: {address}/docs)", flush=True)
    try:
        while thread.is_alive() and not options.exit:
            thread.join(1)
    except KeyboardInterrupt:
        print()
    server.should_exit = True
    thread.join()


def find_dataset_study() -> list[Path]:
    """Return radiographs for the demonstration: the first abnormal study of a local dataset; empty if there is none."""
    found = (folder for pattern in DATASETS for folder in sorted(ROOT.glob(f"{pattern}/XR_*/*/*_positive")))
    folder = next(found, None)
    return sorted(folder.resolve().glob("image*")) if folder else []


def describe_source(images: list[Path]) -> str:
    """Describe where the demonstration's radiographs come from and how their dataset labels them."""
    if images == [SAMPLE]:
        return f"{SAMPLE.name} (a real lower leg, DICOM, from pydicom-data)"
    label = "; its dataset says: abnormal" if images[0].parent.name.endswith("_positive") else ""
    rest = "".join(f", {image.name}" for image in images[1:])
    return f"{images[0]}{rest}{label}"


def print_answers(images: list[Path], address: str) -> None:
    """Send the demonstration's study to the endpoints and print the replies."""
    print(f"radiograph: {describe_source(images)}")
    with httpx.Client(base_url=address, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
        probability = _post(client, "/classify", images).json()
        print(
            f"/classify   probability {probability['probability']:.3f}, threshold {probability['threshold']:.3f}",
            end="",
        )
        doubt = ", but uncertain" if probability["decision"] == "uncertain" else ""
        print(f": {probability['label']}{doubt} (checkpoint {probability['checkpoint']})")
        if probability["decision_reason"]:
            print(f"            {probability['decision_reason']}")
        if not probability["in_scope"]:
            print(f"            out of scope, so this means nothing: {probability['scope_reason']}")
        OVERLAY.parent.mkdir(exist_ok=True)
        OVERLAY.write_bytes(_post(client, "/cam", images[:1]).content)
        print(f"/cam        overlay written to {OVERLAY.relative_to(ROOT)}")
        print("/retrieve   nearest radiographs of the gallery:")
        for neighbor in _post(client, "/retrieve", images).json()["neighbors"]:
            print(
                f"            {neighbor['rank']}. {neighbor['similarity']:.3f} {neighbor['label']:8} {neighbor['path']}"
            )
        print(probability["notice"])


def _post(client: httpx.Client, path: str, images: list[Path]) -> httpx.Response:
    reply = client.post(path, files=[("file", (image.name, image.read_bytes())) for image in images])
    if reply.status_code != httpx.codes.OK:
        sys.exit(f"{path}: {reply.json()['title']}: {reply.json()['detail']}")
    return reply


if __name__ == "__main__":
    main()
