"""`python -m benchmarks.gpu`: measures eager torch, torch.compile, CUDA graphs and fused steps in one run on one GPU.

A pass is measured as in the service: from uint8 canvases in host memory to logits, embeddings and maps in host memory.
Rates are multiples of eager bfloat16's, to be comparable between GPUs. Each row also has the difference of
its output from eager float32's, because a fast engine with another output is useless.
"""

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from benchmarks.markdown import table
from xray.engines.base import EngineRequest
from xray.engines.cuda_engine import BATCH_SIZES, Bf16Network, CudaEngine, Network, build_fused, build_graphs
from xray.engines.parity import Difference, difference, noise_canvases
from xray.engines.torch_engine import TorchEngine
from xray.errors import ArtifactError
from xray.images.radiograph import PixelArray
from xray.network.checkpoint import Checkpoint, load_checkpoint
from xray.network.model import ModelOutput

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = "eager float32"
"""The engine with which the outputs are compared."""
BASE = "eager bfloat16"
"""The engine by whose rates the others are divided."""
MIN_PASSES = 5
"""Minimum number of passes in a measurement, however long a pass takes."""
CUDA = torch.device("cuda")
"""The device to measure; a test replaces it with the CPU."""


@dataclass(frozen=True)
class GpuBenchOptions:
    """Measure the starter checkpoint on this machine's GPU."""

    checkpoint: Path = ROOT / "artifacts" / "starter" / "checkpoint"
    sizes: tuple[int, ...] = (224, 320)
    """Canvas sides in pixels."""
    batches: tuple[int, ...] = BATCH_SIZES
    seconds: float = 2.0
    """Duration of each measurement, in seconds."""
    compile: bool = False
    """Measure torch.compile(mode="max-autotune") too, which takes minutes for every batch size."""
    out: Path = ROOT / "benchmarks" / "gpu.md"


class EagerEngine:
    """A network to measure on the GPU that runs kernel by kernel, or is compiled for each batch size."""

    def __init__(self, network: Network) -> None:
        self._network = network

    @torch.inference_mode()
    def forward(self, pixels_B1SS: PixelArray) -> ModelOutput:
        """Run a batch on the GPU and return the output, in host memory."""
        return self._network(torch.from_numpy(pixels_B1SS).to(CUDA)).cpu()


BenchmarkedEngine = TorchEngine | EagerEngine | CudaEngine


@dataclass(frozen=True)
class Measurement:
    """The measured passes of one engine on the GPU over one batch.

    Attributes:
        seconds: median time of a pass.
        apart: worst difference from the reference.
    """

    batch: int
    seconds: float
    apart: Difference

    @property
    def rate(self) -> float:
        """Radiographs per second on the GPU."""
        return self.batch / self.seconds


def main() -> None:
    """Measure the engines on the GPU; write and print the tables."""
    options = tyro.cli(GpuBenchOptions, prog="python -m benchmarks.gpu")
    if not torch.cuda.is_available():
        sys.exit("benchmarks.gpu needs an NVIDIA GPU, and torch sees none; run it on a machine that has one.")
    checkpoint = load_checkpoint(options.checkpoint)
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}"
    lines = [f"{torch.cuda.get_device_name()}; {versions}; {checkpoint.manifest.architecture}", ""]
    for size in options.sizes:
        measured = measure(build_engines(checkpoint, options.compile), size, options)
        lines += [*rates(measured, size, options.batches), "", *equality(measured, size), ""]
    print("\n".join(lines))
    options.out.write_text("\n".join(["# The network on a GPU, side by side", "", *lines]))


def build_engines(checkpoint: Checkpoint, compiled: bool) -> dict[str, BenchmarkedEngine]:
    """Build the engines that this machine's GPU supports, by name; the reference and the base come first."""
    plain: Network = Bf16Network(TorchEngine(checkpoint, CUDA).model).eval()
    builders: dict[str, Callable[[], BenchmarkedEngine]] = {
        REFERENCE: lambda: TorchEngine(checkpoint, CUDA),
        BASE: lambda: EagerEngine(plain),
        "CUDA graphs": lambda: build_graphs(EngineRequest(checkpoint, CUDA)),
        "CUDA graphs, fused": lambda: build_fused(EngineRequest(checkpoint, CUDA)),
    }
    if compiled:
        builders["torch.compile"] = lambda: EagerEngine(torch.compile(plain, mode="max-autotune", dynamic=False))
    built = {}
    for name, build in builders.items():
        try:
            built[name] = build()
        except (ImportError, RuntimeError, ArtifactError) as error:
            print(f"{name} is skipped: {error}", file=sys.stderr)
    return built


def measure(engines: dict[str, BenchmarkedEngine], size: int, options: GpuBenchOptions) -> dict[str, list[Measurement]]:
    """Measure the GPU's engines on every batch size; all engines on one size before the next, for equal conditions."""
    canvases = noise_canvases(max(options.batches), size)
    measured: dict[str, list[Measurement]] = {name: [] for name in engines}
    for batch in options.batches:
        expected = engines[REFERENCE].forward(canvases[:batch])
        for name, engine in engines.items():
            torch.compiler.reset()  # compile for every batch size, even beyond torch's limit of cached ones
            try:
                found, seconds = time_passes(engine, canvases[:batch], options.seconds)
            except Exception as error:  # compilers may raise anything; the other engines are still measured
                print(f"{name} fails at {batch} x {size} px: {error}", file=sys.stderr)
                continue
            measured[name].append(Measurement(batch, seconds, difference(expected, found)))
            print(f"{size} px, {batch}: {name} {measured[name][-1].rate:.0f}/s", flush=True)
    return measured


def time_passes(engine: BenchmarkedEngine, pixels_B1SS: PixelArray, seconds: float) -> tuple[ModelOutput, float]:
    """Return the output and median seconds of a pass on the GPU; `forward` returns with the output in host memory."""
    engine.forward(pixels_B1SS)  # the first pass captures, compiles and chooses algorithms
    started = time.perf_counter()
    passes: list[float] = []
    while len(passes) < MIN_PASSES or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        output = engine.forward(pixels_B1SS)
        passes.append(time.perf_counter() - before)
    return output, statistics.median(passes)


def rates(measured: dict[str, list[Measurement]], size: int, batches: tuple[int, ...]) -> list[str]:
    """Return the table of the rates of all engines on the GPU, divided by the rate of `BASE`."""
    base = {each.batch: each.rate for each in measured[BASE]}
    rows = []
    for name, row in measured.items():
        cells = {
            each.batch: f"{each.rate / base.get(each.batch, float('nan')):.2f}"
            f" ({each.rate:.0f}/s, {1000 * each.seconds:.2f} ms)"
            for each in row
        }
        rows.append([name, *(cells.get(batch, "failed") for batch in batches)])
    return table([f"{size} px, batches of", *map(str, batches)], rows)


def equality(measured: dict[str, list[Measurement]], size: int) -> list[str]:
    """Return the table of the worst difference of each engine on the GPU from `REFERENCE`."""
    rows = [
        [
            name,
            f"{max(each.apart.logit for each in row):.2g}",
            f"{min(each.apart.embedding for each in row):.6f}",
            f"{min(each.apart.cam for each in row):.6f}",
        ]
        for name, row in measured.items()
        if row
    ]
    return table([f"{size} px, against float32", "logit", "embedding cosine", "map correlation"], rows)


if __name__ == "__main__":
    main()
