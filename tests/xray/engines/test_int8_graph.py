"""A quantised graph is served only when it is whole, this checkpoint's, and recorded as fit."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import numpy as np
import openvino
import pytest
import torch

from xray.artifact import MANIFEST, atomic_folder, read_manifest, sha256, write_manifest
from xray.engines.int8_graph import GRAPH, INSTRUCTIONS, QUANTIZED, WEIGHTS, QuantizedManifest
from xray.engines.openvino_engine import VERSION, to_graph
from xray.engines.parity import Comparison, Difference
from xray.engines.registry import load_engine
from xray.errors import ArtifactError, InputError
from xray.network.checkpoint import Checkpoint, load_checkpoint

pytestmark = pytest.mark.slow

FIT = Comparison("openvino-int8-cpu", 40, 20, Difference(0.1, 0.995, 0.995), Difference(0.02, 0.999, 0.999), 0.8, 0.801)


@pytest.fixture(scope="module")
def made(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with an `int8` folder, whose graph is in float32: reading it does not depend on its arithmetic."""
    folder = copytree(tiny_checkpoint, tmp_path_factory.mktemp("quantized") / "checkpoint")
    checkpoint = load_checkpoint(folder)
    with atomic_folder(folder / QUANTIZED) as partial:
        openvino.save_model(to_graph(checkpoint), partial / GRAPH, compress_to_fp16=False)
        checksums = {name: sha256(partial / name) for name in (GRAPH, WEIGHTS)}
        write_manifest(partial, QuantizedManifest(checkpoint.manifest.id, VERSION, "none", 2, (), FIT, checksums))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return copytree(made, tmp_path / "checkpoint")


@pytest.fixture(autouse=True)
def processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does int8, wherever the tests run."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {INSTRUCTIONS[0]: True})


def test_engine_runs_the_graph_of_the_folder_and_says_so(made: Path, tiny_checkpoint: Path) -> None:
    checkpoint = load_checkpoint(made)
    engine = load_engine(checkpoint, "cpu", "int8")
    assert engine.name == "openvino-int8-cpu"
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1, 64, 64), np.uint8)
    expected = load_engine(load_checkpoint(tiny_checkpoint), "cpu", "float32").forward(pixels)
    assert engine.forward(pixels).logits_B == pytest.approx(expected.logits_B, abs=1e-5)


def test_folder_is_not_looked_at_in_another_precision(made: Path) -> None:
    elsewhere = replace(load_checkpoint(made), folder=made / "nowhere")
    assert load_engine(elsewhere, "cpu", "float32").name == "openvino-float32-cpu"


def change(folder: Path, **fields: Any) -> None:
    write_manifest(folder, replace(read_manifest(folder, QuantizedManifest), **fields))


def without_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def without_weights(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def with_other_weights(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(bytes((folder / WEIGHTS).stat().st_size))


def of_another_checkpoint(folder: Path) -> None:
    change(folder, checkpoint="0123456789ab")


def with_a_logit_that_is_off(folder: Path) -> None:
    change(folder, comparison=replace(FIT, worst=replace(FIT.worst, logit=0.16)))


def with_a_map_that_is_off(folder: Path) -> None:
    change(folder, comparison=replace(FIT, worst=replace(FIT.worst, cam=0.98)))


def with_another_order(folder: Path) -> None:
    change(folder, comparison=replace(FIT, auroc=0.74))


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (rmtree, "int8 is missing; make it with `python -m training quantize`"),
        (without_manifest, "not a finished artifact"),
        (without_weights, r"graph\.bin is missing"),
        (with_other_weights, r"graph\.bin is damaged"),
        (of_another_checkpoint, "was made for checkpoint 0123456789ab"),
        (with_a_logit_that_is_off, r"not fit to serve: logit within 0\.16.*limits are: logit within 0\.15"),
        (with_a_map_that_is_off, "not fit to serve"),
        (with_another_order, r"its AUROC is 0\.7400, the reference's is 0\.8000"),
    ],
)
def test_graph_that_cannot_be_trusted_is_refused(folder: Path, spoil: Callable[[Path], None], fault: str) -> None:
    checkpoint = load_checkpoint(folder)
    spoil(folder / QUANTIZED)
    with pytest.raises(ArtifactError, match=fault):
        load_engine(checkpoint, "cpu", "int8")


def test_asking_for_int8_without_a_folder_says_how_to_get_one(made: Path) -> None:
    with pytest.raises(ArtifactError, match="training quantize"):
        load_engine(replace(load_checkpoint(made), folder=None), "cpu", "int8")


def test_processor_that_saturates_is_refused_because_the_figures_do_not_hold_for_it(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "avx512_f": True})
    with pytest.raises(InputError, match="VNNI"):
        load_engine(load_checkpoint(made), "cpu", "int8")


def test_checkpoint_with_a_quantised_graph_loads_as_before(folder: Path, tiny_checkpoint: Path) -> None:
    def same(checkpoint: Checkpoint) -> bool:
        return checkpoint.manifest == load_checkpoint(tiny_checkpoint).manifest

    assert same(load_checkpoint(folder))
    with_other_weights(folder / QUANTIZED)
    assert same(load_checkpoint(folder))
