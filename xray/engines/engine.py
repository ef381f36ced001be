"""The forward pass behind one small interface, and which engine runs it where.

    Engine             uint8 batch in, ModelOutput out
    ├── TorchEngine    the reference: float32 on any device
    ├── OpenVinoEngine the CPU's: float32, bfloat16, or int8 where a graph was quantised for it
    └── CudaEngine     the GPU's

Legend: B batch, S canvas side.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal, Protocol

import torch

from xray.engines.cuda_engine import fused_engine, graphs_engine
from xray.engines.int8_graph import verified_graph
from xray.engines.parity import difference, noise_canvases, require_equal
from xray.engines.torch_engine import TorchEngine
from xray.errors import InputError
from xray.images.radiograph import PixelArray
from xray.network.checkpoint import Checkpoint
from xray.network.model import ModelOutput

DeviceChoice = Literal["auto", "cuda", "cpu"]
PrecisionChoice = Literal["auto", "float32", "bfloat16", "int8"]
GATE_CANVASES = 3
"""No power of two, so that the gate sees a padded batch."""

logger = logging.getLogger(__name__)


class Engine(Protocol):
    """Whatever can run the network. One thread calls it at a time."""

    @property
    def name(self) -> str:
        """What runs where, for `/info`: `openvino-bfloat16-cpu`."""

    def forward(self, pixels_B1SS: PixelArray) -> ModelOutput:
        """uint8 (B, 1, S, S) to a `ModelOutput` of float32 tensors on the CPU."""

    def sizes_to_warm(self, largest: int) -> Iterable[int]:
        """Sizes of batches whose first pass takes longer, among those that batches up to `largest` need."""


def choose_device(choice: DeviceChoice) -> torch.device:
    """`auto` takes the GPU when there is one.

    Raises:
        InputError: `cuda` was asked for and torch sees no GPU.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise InputError("The device is set to cuda, but torch sees no GPU; use auto or cpu, or mend the driver.")
    return torch.device("cuda" if choice != "cpu" and torch.cuda.is_available() else "cpu")


def load_engine(
    checkpoint: Checkpoint,
    choice: DeviceChoice,
    precision: PrecisionChoice = "auto",
    cache: Path | None = None,
    quantized: Path | None = None,
) -> Engine:
    """The fastest engine for a checkpoint on the chosen device.

    Args:
        precision: of the features' arithmetic; `auto` takes the fastest that the device has, but for `int8`, which
            differs by more than the others and is there on CPUs only.
        cache: folder in which compiled networks outlive the process.
        quantized: the folder `int8` of the checkpoint's, which only that precision reads.

    Raises:
        InputError: the device is not there, or is not one for int8.
        ArtifactError: the quantised graph is missing, damaged, of another checkpoint or not fit to serve.
    """
    device = choose_device(choice)
    if device.type == "cuda":
        if precision == "int8":
            raise InputError("int8 is for CPUs; on a GPU use auto, bfloat16 or float32, or set the device to cpu.")
        reference = TorchEngine(checkpoint, device)
        return reference if precision == "float32" else first_equal(GPU_ENGINES, checkpoint, reference)
    try:
        from xray.engines.openvino_engine import OpenVinoEngine, best_precision
    except ImportError as error:
        logger.warning("%s Until then torch runs the network, several times slower.", error)
        return TorchEngine(checkpoint, device)
    if precision == "int8":
        graph = verified_graph(quantized, checkpoint.manifest.id)
        return OpenVinoEngine(checkpoint, best_precision(), _writable(cache), graph)
    return OpenVinoEngine(checkpoint, best_precision() if precision == "auto" else precision, _writable(cache))


BuildEngine = Callable[[Checkpoint, torch.device], Engine]
GPU_ENGINES: Sequence[BuildEngine] = (fused_engine, graphs_engine)
"""Fastest first; each needs less of the machine than the one before."""


def first_equal(engines: Sequence[BuildEngine], checkpoint: Checkpoint, reference: TorchEngine) -> Engine:
    """The first engine that builds, runs and says what the reference says; the reference if none does.

    Raises:
        RuntimeError: the device runs not even the reference, as after a CUDA error that ends a process's use of it.
    """
    pixels_B1SS = noise_canvases(GATE_CANVASES, checkpoint.manifest.preprocess.size)
    for build in engines:
        try:
            engine = build(checkpoint, reference.device)
            found = difference(reference.forward(pixels_B1SS), engine.forward(pixels_B1SS))
            require_equal(found, "bfloat16")
        except Exception:  # whatever the compilers and drivers below may raise, a slower engine still serves
            logger.exception("%s cannot serve on this machine; a slower engine takes its place.", build.__name__)
        else:
            logger.info("%s agrees with the reference: %s.", engine.name, found)
            return engine
    reference.forward(pixels_B1SS)  # an error that no engine survives is raised here, at start-up
    return reference


def _writable(cache: Path | None) -> Path | None:
    """The folder, made if need be; None where nothing can be written, so that it only costs time."""
    if cache is None:
        return None
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=cache):
            return cache
    except OSError as error:
        logger.warning("Compiled networks cannot be kept in %s (%s); every start compiles anew.", cache, error.strerror)
        return None
