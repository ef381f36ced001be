"""One engine for all galleries of the tests: compiling it takes longer than embedding their radiographs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from index_builder import build, crawl
from xray.checkpoint import Checkpoint, load_checkpoint
from xray.engine import Engine, load_engine


@pytest.fixture(scope="session")
def engine(tiny_checkpoint: Path) -> Engine:
    return load_engine(load_checkpoint(tiny_checkpoint), "cpu")


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tiny_checkpoint: Path, engine: Engine) -> Iterator[None]:
    """Other checkpoints get engines of their own."""
    known = load_checkpoint(tiny_checkpoint).manifest.id

    def load(checkpoint: Checkpoint, device: str) -> Engine:
        return engine if checkpoint.manifest.id == known else load_engine(checkpoint, device)

    with pytest.MonkeyPatch.context() as patch:
        for module in (build, crawl):
            patch.setattr(module, "load_engine", load)
        yield
