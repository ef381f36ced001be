"""The fastest engine that builds, runs and agrees with the reference serves; the reference itself is exact."""

import logging
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from xray.engines.base import Engine, EngineRequest, Precision
from xray.engines.cuda_engine import build_fused
from xray.engines.registry import ENGINES, EngineFactory, first_fit
from xray.engines.torch_engine import TorchEngine
from xray.errors import ArtifactError
from xray.images.preprocess import PreprocessSpec
from xray.network.checkpoint import Checkpoint, CheckpointManifest, TrainingData, load_checkpoint
from xray.network.model import ModelOutput, XrayNetwork

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@dataclass
class OffEngine:
    """The reference with logits that are off by a constant; `inf` breaks the device for good."""

    reference: TorchEngine
    off: float
    name: str
    device: torch.device = CPU
    precision: Precision = "bfloat16"

    def forward(self, pixels_B1SS: np.ndarray) -> ModelOutput:
        if self.off == np.inf:
            self.reference.model.register_forward_pre_hook(fail)
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        output = self.reference.forward(pixels_B1SS)
        return replace(output, logits_B=output.logits_B + self.off)

    def sizes_to_warm(self, largest: int) -> Iterable[int]:
        return ()


def fail(*_: object) -> None:
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


def factory(off: float, architectures: frozenset[str] | None = None) -> EngineFactory:
    """Builds an engine that is off; one that is off by nan cannot be built."""

    def build(request: EngineRequest) -> Engine:
        if np.isnan(off):
            raise ImportError("no Triton here")
        return OffEngine(TorchEngine(request.checkpoint, CPU), off, f"off by {off}")

    return EngineFactory(f"off by {off}", "cpu", frozenset({"bfloat16"}), build, architectures, is_checked=True)


def chosen(checkpoint: Checkpoint, *offs: float) -> Engine:
    """The engine that is chosen from some that are off."""
    return first_fit([factory(off) for off in offs], EngineRequest(checkpoint, CPU))


@pytest.mark.parametrize(
    ("offs", "name"),
    [
        ((0.0, 0.01), "off by 0.0"),
        ((np.nan, 0.01), "off by 0.01"),
        ((0.3, 0.01), "off by 0.01"),
        ((0.3, np.nan), "torch-float32-cpu"),
    ],
)
def test_fastest_engine_that_builds_and_agrees_serves_and_others_are_reported(
    tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture, offs: tuple[float, float], name: str
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    with caplog.at_level(logging.INFO):
        assert chosen(checkpoint, *offs).name == name
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == {"off by 0.0": 0, "off by 0.01": 1}.get(name, 2)
    assert all("a slower engine takes its place" in record.message for record in errors)


def test_error_that_no_engine_survives_is_raised_and_not_climbed_down_from(tiny_checkpoint: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        chosen(checkpoint, np.inf, 0.0)


def test_engine_for_other_architectures_is_passed_over_without_an_error(
    tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    request = EngineRequest(load_checkpoint(tiny_checkpoint), CPU)
    with caplog.at_level(logging.INFO):
        assert first_fit([factory(0.0, frozenset({"resnet50"})), factory(0.01)], request).name == "off by 0.01"
    assert "off by 0.0 runs resnet50 only; a slower engine takes its place for densenet121." in caplog.text
    assert all(record.levelno < logging.WARNING for record in caplog.records)


def test_missing_package_costs_only_its_engine_and_is_said(
    tiny_checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    request = EngineRequest(load_checkpoint(tiny_checkpoint), CPU, "bfloat16")
    assert first_fit([replace(factory(np.nan), is_checked=False)], request).name == "torch-float32-cpu"
    assert "no Triton here Until then torch runs the network, several times slower." in caplog.text


def test_fused_engine_refuses_other_architectures_than_densenets() -> None:
    manifest = CheckpointManifest("resnet50", PreprocessSpec(size=64), TrainingData("nothing", 0, 0, ""))
    checkpoint = Checkpoint(XrayNetwork("resnet50", manifest.preprocess), manifest)
    with pytest.raises(ArtifactError, match="runs densenet121, densenet169, densenet201 only, not resnet50"):
        build_fused(EngineRequest(checkpoint, torch.device("cuda")))


def test_every_engine_of_the_registry_can_be_imported_and_says_what_it_is(tiny_checkpoint: Path) -> None:
    pytest.importorskip("triton")
    for each in ENGINES:
        if each.device == "cuda" and not torch.cuda.is_available():
            with pytest.raises((RuntimeError, AssertionError)):  # imported and called, and then there is no GPU
                each.build(EngineRequest(load_checkpoint(tiny_checkpoint), torch.device("cuda")))
            continue
        for precision in each.precisions - {"int8"}:
            device = torch.device(each.device)
            engine = each.build(EngineRequest(load_checkpoint(tiny_checkpoint), device, precision))
            assert (engine.device.type, engine.precision) == (each.device, precision)
            assert {each.device, precision} < set(engine.name.split("-"))


def test_reference_is_not_rounded_to_tf32(tiny_checkpoint: Path) -> None:
    engine, allowed = TorchEngine(load_checkpoint(tiny_checkpoint), CPU), []
    engine.model.register_forward_pre_hook(lambda *_: allowed.append(torch.backends.cudnn.allow_tf32))
    before = torch.backends.cudnn.allow_tf32
    engine.forward(np.zeros((1, 1, 64, 64), np.uint8))
    assert allowed == [False]
    assert torch.backends.cudnn.allow_tf32 == before


def test_engines_need_neither_openvino_nor_faiss_nor_triton_to_be_imported() -> None:
    program = "import sys; sys.modules.update(openvino=None, faiss=None, triton=None); import xray.engines.registry"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
