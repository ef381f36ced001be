"""One engine for all galleries of the tests: compiling it takes longer than embedding their radiographs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from index_builder import build, crawl
from xray.engines.base import DeviceChoice, Engine, PrecisionChoice
from xray.engines.registry import load_engine
from xray.network.checkpoint import Checkpoint, load_checkpoint


@pytest.fixture(scope="session")
def engine(tiny_checkpoint: Path) -> Engine:
    return load_engine(load_checkpoint(tiny_checkpoint), "cpu")


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tiny_checkpoint: Path, engine: Engine) -> Iterator[None]:
    """Other checkpoints get engines of their own."""
    known = load_checkpoint(tiny_checkpoint).manifest.id

    def load(checkpoint: Checkpoint, device: DeviceChoice, precision: PrecisionChoice) -> Engine:
        shared = precision == "auto" and checkpoint.manifest.id == known
        return engine if shared else load_engine(checkpoint, device, precision)

    with pytest.MonkeyPatch.context() as patch:
        for module in (build, crawl):
            patch.setattr(module, "load_engine", load)
        yield
