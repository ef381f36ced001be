"""The CPU engine says what the float32 reference says, and a second start finds what the first one compiled."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import ROOT, STARTER
from tests.phantoms import draw_phantom
from training.export.check_engine import Reference, compare_engine, run_reference
from xray.engines.int8_graph import GRAPH, WEIGHTS
from xray.engines.openvino_engine import CpuPrecision, OpenVinoEngine, best_precision
from xray.engines.parity import difference, require_equal, require_fit
from xray.engines.registry import load_engine
from xray.engines.torch_engine import TorchEngine
from xray.images.preprocess import preprocess
from xray.images.radiograph import Radiograph
from xray.mura.studies import read_mura, records_of
from xray.network.checkpoint import Checkpoint, load_checkpoint
from xray.network.model import pool

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
PRECISIONS: list[CpuPrecision] = ["float32", "bfloat16"]


@pytest.fixture(scope="module")
def starter() -> Checkpoint:
    return load_checkpoint(STARTER / "checkpoint")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that the tests of this module share."""
    return tmp_path_factory.mktemp("compiled")


def pixels_of(radiographs: list[Radiograph], checkpoint: Checkpoint) -> np.ndarray:
    return np.stack([preprocess(radiograph, checkpoint.manifest.preprocess)[0] for radiograph in radiographs])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_engine_says_of_phantoms_what_the_reference_says(
    starter: Checkpoint, kept: Path, precision: CpuPrecision
) -> None:
    pixels = pixels_of([Radiograph(draw_phantom(seed, fracture=seed % 2 == 0)) for seed in range(6)], starter)
    engine = OpenVinoEngine(starter, precision, kept)
    require_equal(difference(TorchEngine(starter, CPU).forward(pixels), engine.forward(pixels)), precision)


@pytest.fixture(scope="module")
def on_real_radiographs(starter: Checkpoint, fracatlas: Path) -> Reference:
    return run_reference(starter, records_of(read_mura(fracatlas, "valid"))[::6])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_engine_passes_the_equality_gate_on_real_radiographs(
    starter: Checkpoint, kept: Path, on_real_radiographs: Reference, precision: CpuPrecision
) -> None:
    require_fit(compare_engine(on_real_radiographs, OpenVinoEngine(starter, precision, kept)), precision)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_served_map_pooled_plus_bias_is_the_served_logit(
    starter: Checkpoint, kept: Path, precision: CpuPrecision
) -> None:
    pixels = pixels_of([Radiograph(draw_phantom(seed)) for seed in range(4)], starter)
    output, pooling = OpenVinoEngine(starter, precision, kept).forward(pixels), starter.manifest.map_spec.pooling
    bias = starter.model.classifier.bias.detach()
    assert torch.allclose(pool(output.cams_Bhw, pooling) + bias, output.logits_B, atol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_answer_does_not_depend_on_the_company_in_the_batch(
    starter: Checkpoint, kept: Path, precision: CpuPrecision
) -> None:
    engine = OpenVinoEngine(starter, precision, kept)
    pixels = pixels_of([Radiograph(draw_phantom(seed)) for seed in range(5)], starter)
    together, alone = engine.forward(pixels), engine.forward(pixels[3:4])
    assert float(together.logits_B[3]) == pytest.approx(float(alone.logits_B[0]), abs=1e-5)


def test_output_of_a_pass_outlives_the_next_one(tiny_checkpoint: Path) -> None:
    engine = load_engine(load_checkpoint(tiny_checkpoint), "cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 1, 64, 64), np.uint8)
    output = engine.forward(pixels)
    before = [tensor.clone() for tensor in (output.logits_B, output.embeddings_BD, output.cams_Bhw)]
    engine.forward(255 - pixels)
    assert all(map(torch.equal, before, (output.logits_B, output.embeddings_BD, output.cams_Bhw)))


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({"cpu_name": "Intel(R) Xeon(R) 6", "avx512_bf16": True, "amx_bf16": True}, "bfloat16"),
        ({"cpu_name": "Intel(R) Xeon(R) 6", "avx512_bf16": True, "amx_bf16": False}, "float32"),
        ({"cpu_name": "AMD EPYC 9", "avx512_bf16": True, "amx_bf16": False}, "bfloat16"),
        ({"cpu_name": "AMD EPYC 7", "avx512_bf16": False}, "float32"),
        ({"architecture": "aarch64"}, "float32"),
    ],
)
def test_bfloat16_is_taken_where_the_processor_is_faster_in_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, str | bool], precision: CpuPrecision
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert best_precision() == precision


def test_second_start_reads_what_the_first_one_compiled(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    OpenVinoEngine(checkpoint, "float32", tmp_path)
    written = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    assert {GRAPH, WEIGHTS} <= {file.name for file in written}
    OpenVinoEngine(checkpoint, "float32", tmp_path)
    assert {file: file.stat().st_mtime_ns for file in written} == written


def test_damaged_cache_is_made_anew(tiny_checkpoint: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 1, 64, 64), np.uint8)
    expected = OpenVinoEngine(checkpoint, "float32", tmp_path).forward(pixels).logits_B
    weights = next(tmp_path.rglob(WEIGHTS))
    weights.write_bytes(bytes(weights.stat().st_size))
    again = OpenVinoEngine(checkpoint, "float32", tmp_path).forward(pixels).logits_B
    assert again == pytest.approx(expected, abs=1e-6)


def test_cache_that_cannot_be_written_costs_only_time(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    engine = load_engine(load_checkpoint(tiny_checkpoint), "cpu", cache=tmp_path / "file" / "cache")
    assert engine.forward(np.zeros((1, 1, 64, 64), np.uint8)).logits_B.isfinite().all()


def test_importing_the_engine_tells_nobody(tmp_path: Path) -> None:
    """OpenVINO's telemetry leaves the id it reports under in the home folder."""
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", "import xray.engines.openvino_engine"], cwd=ROOT, env=environment, check=True)
    assert not (tmp_path / "intel").exists()


LET_GO = """
import gc, os, signal, sys, threading
from pathlib import Path
from xray.network.checkpoint import load_checkpoint
from xray.engines.openvino_engine import OpenVinoEngine

engines = [OpenVinoEngine(load_checkpoint(Path(sys.argv[1])), "float32")]
elsewhere = threading.Thread(target=lambda: (engines.clear(), gc.collect()))
elsewhere.start()
elsewhere.join()
signal.signal(signal.SIGUSR1, lambda *_: print("heard"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_engine_that_another_thread_lets_go_leaves_signals_as_they_were(tiny_checkpoint: Path) -> None:
    command = [sys.executable, "-c", LET_GO, str(tiny_checkpoint)]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout == b"heard\n"
