"""The GPU's table says how fast and how true each engine is; one that fails costs its own cells only."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import (
    BASE,
    REFERENCE,
    BenchmarkedEngine,
    EagerEngine,
    GpuBenchOptions,
    Measurement,
    equality,
    measure,
    rates,
)
from tests.conftest import ROOT
from xray.engines.cuda_engine import Bf16Network, CudaEngine
from xray.engines.parity import LIMITS, Difference
from xray.engines.torch_engine import TorchEngine
from xray.network.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def fail(*_: object) -> torch.Tensor:
    raise RuntimeError("out of memory")


def test_failing_engine_is_told_and_the_others_are_measured(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "CUDA", CPU)
    reference = TorchEngine(load_checkpoint(tiny_checkpoint), CPU)
    engines: dict[str, BenchmarkedEngine] = {
        REFERENCE: reference,
        BASE: EagerEngine(Bf16Network(reference.model).eval()),
        "broken": CudaEngine("broken", CPU, fail, 1024),
    }
    measured = measure(engines, 64, GpuBenchOptions(batches=(1, 2), seconds=0))
    assert [each.batch for each in measured[BASE]] == [1, 2]
    assert measured[REFERENCE][0].apart.logit == 0
    assert 0 < measured[BASE][0].apart.logit < 5 * LIMITS["bfloat16"].logit
    assert measured["broken"] == []
    assert "broken fails at 2 x 64 px: out of memory" in capsys.readouterr().err


def test_rates_are_multiples_of_the_base_and_equality_is_the_worst_of_all_batches() -> None:
    apart = Difference(0.01, 0.9999, 0.999)
    measured = {
        BASE: [Measurement(4, 0.1, apart), Measurement(8, 0.1, apart)],
        "fused": [Measurement(8, 0.025, Difference(0.002, 1, 1)), Measurement(8, 0.025, Difference(0.004, 0.99999, 1))],
    }
    assert rates(measured, 224, (4, 8))[2:] == [
        f"| {BASE} | 1.00 (40/s, 100.00 ms) | 1.00 (80/s, 100.00 ms) |",
        "| fused | failed | 4.00 (320/s, 25.00 ms) |",
    ]
    assert equality(measured, 224)[3] == "| fused | 0.004 | 0.999990 | 1.000000 |"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_benchmark_says_in_one_line_that_there_is_no_gpu_and_needs_few_packages() -> None:
    absent = "openvino=None, faiss=None, triton=None, fastapi=None, pydantic=None, sklearn=None, pyarrow=None"
    program = f"import sys; sys.modules.update({absent}); sys.argv = ['gpu']; import benchmarks.gpu as b; b.main()"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "needs an NVIDIA GPU" in done.stderr
