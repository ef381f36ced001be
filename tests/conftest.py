"""What many tests share: a small random checkpoint, and real radiographs where they are at hand."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from xray.images.preprocess import PreprocessSpec
from xray.network.checkpoint import Checkpoint, CheckpointManifest, TrainingData, save_checkpoint
from xray.network.model import XrayNetwork

ROOT = Path(__file__).resolve().parent.parent
STARTER = ROOT / "artifacts" / "starter"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the tests that take longest, so that no process is left alone with one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the service compiles for a test, in this process or in one of its own, goes when the tests end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DenseNet-121 at 64 px with seeded random weights."""
    torch.manual_seed(0)
    spec = PreprocessSpec(size=64)
    manifest = CheckpointManifest("densenet121", spec, TrainingData("nothing", 0, 0, ""))
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    save_checkpoint(folder, Checkpoint(XrayNetwork("densenet121", spec), manifest))
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session")
def fracatlas() -> Path:
    """Limbs with air around them, in MURA layout."""
    return beside_the_checkout("FracAtlas")


@pytest.fixture(scope="session")
def knee_oa() -> Path:
    """Knees that fill the whole radiograph, in MURA layout."""
    return beside_the_checkout("KneeOA")


def beside_the_checkout(dataset: str) -> Path:
    """The folder of a dataset; skips where it is missing, unless `OSTEON_TEST_ALL` says that nothing may be skipped."""
    folder = ROOT.parent / "shared" / dataset
    if not folder.is_dir():
        assert not os.environ.get("OSTEON_TEST_ALL"), f"{folder.relative_to(ROOT.parent)} is not beside the checkout"
        pytest.skip(f"no real radiographs: {folder.relative_to(ROOT.parent)} is not beside the checkout")
    return folder
