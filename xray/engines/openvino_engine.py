"""The forward pass on a CPU: features compiled by OpenVINO for this processor, the head in torch.

The head stays in float32 outside the compiled graph, so that map, logit and embedding are computed from the same
numbers in every precision.

Legend: B batch, S canvas side, C channels and h, w cells of the last feature map.
"""

import logging
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal

import torch
from torch import Tensor, nn

from xray.artifact import atomic_folder, read_manifest, sha256, verify_checksums, write_manifest
from xray.engines.base import EngineRequest, Precision
from xray.engines.int8_graph import GRAPH, WEIGHTS, verified_graph
from xray.errors import ArtifactError
from xray.images.radiograph import PixelArray
from xray.network.checkpoint import Checkpoint
from xray.network.model import ModelOutput, XrayNetwork

try:
    # Importing OpenVINO sends telemetry over the network and leaves an ID in the home folder, unless this package
    # cannot be imported. The same is true of NNCF, which is imported later.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
except ImportError as error:
    raise ImportError("The CPU engine needs OpenVINO, which is not installed; install openvino.") from error

VERSION = openvino.__version__.split("-")[0]
CpuPrecision = Literal["float32", "bfloat16"]
SCHEMA_VERSION = 1
"""Version of the cache's manifest; caches of other versions are made again."""
COMPILED = "compiled"
"""Folder of OpenVINO's own cache of compiled networks."""
HINTS = {"float32": "f32", "bfloat16": "bf16"}
"""OpenVINO's names for the precisions."""
CORE = openvino.Core()
"""The only instance, for the life of the process. The CPU plugin gives the first thread that compiles, usually the main
one, a signal stack and frees it with the core: the next signal in that thread would then end the process.
"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GraphManifest:
    """The origin of a cached OpenVINO graph, and the SHA-256 of its files by name."""

    checkpoint: str
    openvino: str
    checksums: dict[str, str]
    schema_version: int = SCHEMA_VERSION


class OpenVinoEngine:
    """Runs the network with OpenVINO, in one stream over all CPU cores, which has the lowest latency per batch."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        precision: CpuPrecision,
        cache: Path | None = None,
        quantized: Path | None = None,
    ) -> None:
        """Compile the features, or load them from the cache.

        Args:
            precision: precision of the features or, in a quantized graph, of the parts that are not in int8.
            cache: folder for the compiled networks of any number of checkpoints; None compiles at every start.
            quantized: the features in int8, from `xray.engines.int8_graph.verified_graph`; None converts the network.
        """
        self.device = torch.device("cpu")
        self.precision: Precision = precision if quantized is None else "int8"
        self._head = checkpoint.model.forward_head
        properties = {"INFERENCE_PRECISION_HINT": HINTS[precision], "PERFORMANCE_HINT": "LATENCY"}
        if cache is not None:
            properties["CACHE_DIR"] = str(cache / COMPILED)
        if quantized is not None:
            graph = CORE.read_model(quantized)
        elif cache is None:
            graph = to_graph(checkpoint)
        else:
            graph = _cached_graph(checkpoint, cache / f"{checkpoint.manifest.id}-openvino-{VERSION}")
        self._request = CORE.compile_model(graph, "CPU", properties).create_infer_request()

    @property
    def name(self) -> str:
        """A name such as `openvino-bfloat16-cpu`, with the precision of the features."""
        return f"openvino-{self.precision}-cpu"

    def sizes_to_warm(self, largest: int) -> set[int]:
        """Return the smallest and the largest batch size, on which to warm OpenVINO."""
        return {1, largest}

    @torch.inference_mode()
    def forward(self, pixels_B1SS: PixelArray) -> ModelOutput:
        """Map uint8 (B, 1, S, S) to a `ModelOutput` of B rows: OpenVINO's features, torch's head."""
        self._request.infer({0: pixels_B1SS}, share_inputs=True)
        # The tensor is a view of OpenVINO's memory, which the next pass overwrites; the head's results are copies.
        return self._head(torch.from_numpy(self._request.get_output_tensor(0).data))


def build(request: EngineRequest) -> OpenVinoEngine:
    """Build the OpenVINO engine in the requested precision; `auto` is the faster one on this processor.

    Raises:
        InputError: int8 was requested and the processor has no instructions for it.
        ArtifactError: the quantized graph is missing, damaged, of another checkpoint or not fit to serve.
    """
    cache = _writable(request.cache)
    if request.precision == "int8":
        graph = verified_graph(request.checkpoint)
        return OpenVinoEngine(request.checkpoint, best_precision(), cache, graph)
    precision = best_precision() if request.precision == "auto" else request.precision
    return OpenVinoEngine(request.checkpoint, precision, cache)


def best_precision() -> CpuPrecision:
    """Return bfloat16 if OpenVINO is faster in it on this processor (AMX, or AMD with AVX512-BF16), else float32.

    Two cores of an EPYC (Zen 4) process 7 radiographs a second in float32 and 14 in bfloat16 (320 px); two cores of a
    Xeon with AVX512-BF16 and without AMX process 35 and 24 (192 px).
    """
    has = torch.cpu.get_capabilities()
    is_amd = str(has.get("cpu_name", "")).startswith("AMD")
    return "bfloat16" if has.get("amx_bf16") or (is_amd and has.get("avx512_bf16")) else "float32"


class _Features(nn.Module):
    """The part of the network that OpenVINO compiles: uint8 (B, 1, S, S) to feature map (B, C, h, w)."""

    def __init__(self, model: XrayNetwork) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels_B1SS: Tensor) -> Tensor:
        return self.model.forward_features(pixels_B1SS)


def to_graph(checkpoint: Checkpoint, named: bool = False) -> Any:
    """Convert the features to the OpenVINO engine's graph, uint8 (B, 1, S, S) to (B, C, h, w), for any batch size.

    Afterwards the network's parameters no longer require gradients.

    Args:
        named: give each node the name of its layer, for quantization. This takes seconds and a gigabyte more,
            because torch then creates a type for every layer.
    """
    model = checkpoint.model.eval().requires_grad_(False)
    size = checkpoint.manifest.preprocess.size
    example = torch.zeros((2, 1, size, size), dtype=torch.uint8)
    # `openvino.convert_model` would send telemetry about each conversion over the network.
    frontend = FrontEndManager().load_by_framework("pytorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # OpenVINO traces with torch.jit, which is deprecated
        if named:
            decoder = TorchScriptPythonDecoder(_Features(model), example_input=example)
        else:
            # No second trace as a check: the network has no branches that depend on the radiographs.
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                lambda pixels_B1SS: model.forward_features(pixels_B1SS), example, check_trace=False
            )
            decoder = TorchScriptPythonDecoder(traced)
    graph = frontend.convert(frontend.load(decoder))
    graph.reshape([-1, 1, size, size])
    return graph


def _cached_graph(checkpoint: Checkpoint, place: Path) -> Any:
    """Return the graph in the folder `place`; convert and store it first if it is missing or damaged."""
    try:
        manifest = read_manifest(place, GraphManifest)
        verify_checksums(place, {GRAPH: "", WEIGHTS: "", **manifest.checksums})
    except ArtifactError:
        graph = to_graph(checkpoint)
        with atomic_folder(place) as partial:
            openvino.save_model(graph, partial / GRAPH, compress_to_fp16=False)
            checksums = {name: sha256(partial / name) for name in (GRAPH, WEIGHTS)}
            write_manifest(partial, GraphManifest(checkpoint.manifest.id, VERSION, checksums))
    return CORE.read_model(place / GRAPH)


def _writable(cache: Path | None) -> Path | None:
    """Return the folder, created if necessary; None if it cannot be written, which only makes starts slower."""
    if cache is None:
        return None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=cache):
            return cache
    except OSError as error:
        logger.warning(
            "Compiled networks cannot be stored in %s (%s); every start compiles again.", cache, error.strerror
        )
        return None
