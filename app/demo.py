"""`python -m app.demo`: start the service, send it one radiograph, print the answers, keep serving."""

import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import tyro
import uvicorn

from app.main import create_app
from app.service import load_service
from app.settings import Settings
from xray.errors import XrayError

ROOT = Path(__file__).resolve().parent.parent
PHANTOM = ROOT / "docs" / "phantom.png"
DATASETS = ("data/*/valid", "../shared/*/valid")
"""Where a checkout may have real radiographs in MURA layout, relative to its root."""
OVERLAY = ROOT / ".osteon-demo" / "overlay.png"
TIMEOUT_SECONDS = 60
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class DemoOptions:
    """Show what the service answers."""

    image: Path | None = None
    """Radiograph to send; without it, a real one where a dataset is at hand, else a drawn phantom."""
    port: int = 8000
    exit: bool = False
    """Stop after the answers."""


def main() -> None:
    options = tyro.cli(DemoOptions)
    image = options.image or real_radiograph() or PHANTOM
    try:
        app = create_app(load_service(Settings(port=options.port)))
    except XrayError as error:
        sys.exit(f"osteon refuses to start: {error}")
    server = uvicorn.Server(uvicorn.Config(app, port=options.port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            sys.exit(f"port {options.port} cannot be opened; choose another: make demo PORT=8001")
        time.sleep(POLL_SECONDS)
    address = f"http://127.0.0.1:{options.port}"
    show(image, address)
    if not options.exit:
        print(f"serving on {address} (docs: {address}/docs)", flush=True)
    try:
        while thread.is_alive() and not options.exit:
            thread.join(1)
    except KeyboardInterrupt:
        print()
    server.should_exit = True
    thread.join()


def real_radiograph() -> Path | None:
    """The first abnormal radiograph of a dataset that is at hand."""
    found = (path for pattern in DATASETS for path in sorted(ROOT.glob(f"{pattern}/XR_*/*/*_positive/image1.*")))
    return next(found, None)


def show(image: Path, address: str) -> None:
    """Send one image to each endpoint and print what comes back."""
    print("radiograph: docs/phantom.png (a drawn phantom, no patient)" if image == PHANTOM else f"radiograph: {image}")
    with httpx.Client(base_url=address, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
        probability = _post(client, "/classify", image).json()
        print(
            f"/classify   probability {probability['probability']:.3f}, threshold {probability['threshold']:.3f}",
            end="",
        )
        print(f": {probability['label']} (checkpoint {probability['checkpoint']})")
        OVERLAY.parent.mkdir(exist_ok=True)
        OVERLAY.write_bytes(_post(client, "/cam", image).content)
        print(f"/cam        overlay written to {OVERLAY.relative_to(ROOT)}")
        print("/retrieve   nearest radiographs of the gallery:")
        for neighbor in _post(client, "/retrieve", image).json()["neighbors"]:
            print(
                f"            {neighbor['rank']}. {neighbor['similarity']:.3f} {neighbor['label']:8} {neighbor['path']}"
            )
        print(probability["notice"])


def _post(client: httpx.Client, path: str, image: Path) -> httpx.Response:
    try:
        reply = client.post(path, files={"file": (image.name, image.read_bytes())})
    except OSError as error:
        sys.exit(f"{image} cannot be opened: {error.strerror}")
    if reply.status_code != httpx.codes.OK:
        sys.exit(f"{path}: {reply.json()['title']}: {reply.json()['detail']}")
    return reply


if __name__ == "__main__":
    main()
