"""Batches are cut, padded and read back rightly (on the CPU); the GPU says what the reference says (on a GPU)."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import STARTER
from xray.engines import cuda_engine
from xray.engines.base import EngineRequest
from xray.engines.cuda_engine import (
    BATCH_SIZES,
    Bf16Network,
    CudaEngine,
    Network,
    build_fused,
    build_graphs,
    cuts,
    pack,
    unpack,
)
from xray.engines.fused_densenet import FusedDenseNet
from xray.engines.parity import difference, noise_canvases, require_equal
from xray.engines.registry import load_engine
from xray.engines.torch_engine import TorchEngine
from xray.images.radiograph import PixelArray
from xray.network.checkpoint import Checkpoint, load_checkpoint
from xray.network.model import ModelOutput

pytestmark = pytest.mark.slow

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture(scope="module")
def starter() -> Checkpoint:
    return load_checkpoint(STARTER / "checkpoint")


@dataclass
class CpuRunner:
    """Does what `GraphRunner` does, with a canvas of noise wherever a graph would meet an old one."""

    network: Network
    sizes: list[int] = field(default_factory=list)
    results_BN: torch.Tensor = field(default_factory=lambda: torch.empty(0))

    @torch.inference_mode()
    def __call__(self, pixels_B1SS: PixelArray, size: int) -> torch.Tensor:
        self.sizes.append(size)
        padding = noise_canvases(size - len(pixels_B1SS), pixels_B1SS.shape[-1])
        packed = pack(self.network(torch.from_numpy(np.concatenate([pixels_B1SS, padding]))))
        if self.results_BN.shape == packed.shape:
            self.results_BN.copy_(packed)
        else:
            self.results_BN = packed
        return self.results_BN[: len(pixels_B1SS)]


def engine_on_the_cpu(checkpoint: Checkpoint) -> tuple[CudaEngine, CpuRunner]:
    run = CpuRunner(FusedDenseNet(checkpoint.model, torch.float32))
    return CudaEngine("fused-float32-cpu", CPU, run, checkpoint.model.classifier.in_features), run


@pytest.mark.parametrize("count", [1, 2, 3, 31, 255, 256, 257, 600])
def test_cuts_run_every_row_once_in_the_smallest_graph_that_holds_it(count: int) -> None:
    rows = [row for part, _ in cuts(count) for row in range(count)[part]]
    assert rows == list(range(count))
    for part, size in cuts(count):
        length = part.stop - part.start
        assert size in BATCH_SIZES
        assert length <= size < 2 * length


def test_cut_and_padded_batch_equals_the_reference(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_engine, "BATCH_SIZES", (1, 2, 4))
    checkpoint = load_checkpoint(tiny_checkpoint)
    engine, run = engine_on_the_cpu(checkpoint)
    pixels = noise_canvases(11, 64)
    require_equal(difference(TorchEngine(checkpoint, CPU).forward(pixels), engine.forward(pixels)), "float32")
    assert run.sizes == [4, 4, 4]


@pytest.mark.parametrize("count", [1, 2])
def test_output_of_a_pass_outlives_the_next_one(tiny_checkpoint: Path, count: int) -> None:
    engine, _ = engine_on_the_cpu(load_checkpoint(tiny_checkpoint))
    pixels = noise_canvases(count, 64)
    output = engine.forward(pixels)
    before = [tensor.clone() for tensor in (output.logits_B, output.embeddings_BD, output.cams_Bhw)]
    engine.forward(255 - pixels)
    assert all(map(torch.equal, before, (output.logits_B, output.embeddings_BD, output.cams_Bhw)))


def test_packed_output_is_read_back_as_it_was() -> None:
    output = ModelOutput(torch.randn(3), torch.randn(3, 7), torch.randn(3, 2, 2), torch.randn(3))
    read = unpack(pack(output), dimensions=7)
    assert torch.equal(read.logits_B, output.logits_B)
    assert torch.equal(read.embeddings_BD, output.embeddings_BD)
    assert torch.equal(read.cams_Bhw, output.cams_Bhw)
    assert torch.equal(read.attentions_B, output.attentions_B)


def test_failure_of_the_device_reaches_the_caller() -> None:
    def fail(pixels_B1SS: PixelArray, size: int) -> torch.Tensor:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory access"):
        CudaEngine("broken", CPU, fail, 7).forward(noise_canvases(1, 64))


def test_plain_layers_in_bfloat16_pass_the_gate(starter: Checkpoint) -> None:
    pixels = noise_canvases(2, starter.manifest.preprocess.size)
    with torch.inference_mode():
        found = Bf16Network(starter.model).eval()(torch.from_numpy(pixels))
    require_equal(difference(TorchEngine(starter, CPU).forward(pixels), found), "bfloat16")
    assert {weight.dtype for weight in starter.model.parameters()} == {torch.float32}


BUILDERS = pytest.mark.parametrize("build", [build_fused, build_graphs])
Build = Callable[[EngineRequest], CudaEngine]


@needs_gpu
@BUILDERS
def test_engine_on_the_gpu_equals_the_reference_in_every_graph_in_any_order(build: Build) -> None:
    """Graphs share memory: each batch size after each other one would show it."""
    checkpoint = load_checkpoint(STARTER / "checkpoint")
    reference, pixels = TorchEngine(checkpoint, CUDA), noise_canvases(33, checkpoint.manifest.preprocess.size)
    engine, expected = build(EngineRequest(checkpoint, CUDA)), reference.forward(pixels)
    for count in (1, 33, 2, 7, 16, 1, 5, 33):
        part = ModelOutput(*(tensor[:count] for tensor in vars(expected).values()))
        require_equal(difference(part, engine.forward(pixels[:count])), "bfloat16")


@needs_gpu
@BUILDERS
def test_memory_of_the_gpu_does_not_grow_once_the_graphs_are_captured(build: Build) -> None:
    checkpoint = load_checkpoint(STARTER / "checkpoint")
    TorchEngine(checkpoint, CUDA)
    engine, pixels = build(EngineRequest(checkpoint, CUDA)), noise_canvases(8, checkpoint.manifest.preprocess.size)
    counts = (1, 2, 4, 8)
    for count in counts:
        engine.forward(pixels[:count])
    before = torch.cuda.memory_reserved()
    for count in 20 * counts:
        engine.forward(pixels[:count])
    assert torch.cuda.memory_reserved() == before


@needs_gpu
def test_fused_engine_is_the_one_that_serves_on_this_gpu() -> None:
    checkpoint = load_checkpoint(STARTER / "checkpoint")
    assert load_engine(checkpoint, "cuda").name == "cuda-bfloat16-fused"
    assert load_engine(checkpoint, "cuda", "float32").name == "torch-float32-cuda"
