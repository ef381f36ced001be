"""What an engine is: it runs the network's forward pass on one device, in one arithmetic.

    Engine                 turns a uint8 batch into a ModelOutput
    ├── TorchEngine        the reference: float32 on any device
    ├── OpenVinoEngine     on a CPU: float32, bfloat16, or int8 where a graph was quantized for it
    └── CudaEngine         on an NVIDIA GPU: bfloat16

Legend: B batch, S canvas side.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Literal, Protocol

import torch

from xray.images.radiograph import PixelArray
from xray.network.checkpoint import Checkpoint
from xray.network.model import ModelOutput

DeviceChoice = Literal["auto", "cuda", "cpu"]
Precision = Literal["float32", "bfloat16", "int8"]
PrecisionChoice = Literal["auto", "float32", "bfloat16", "int8"]


class Engine(Protocol):
    """Runs the network. One thread calls it at a time."""

    @property
    def name(self) -> str:
        """What `/info` and the metrics show: `openvino-bfloat16-cpu`."""

    @property
    def device(self) -> torch.device:
        """Where the features are computed."""

    @property
    def precision(self) -> Precision:
        """The arithmetic of the features; the head is in float32 in every engine."""

    def forward(self, pixels_B1SS: PixelArray) -> ModelOutput:
        """uint8 (B, 1, S, S) to a `ModelOutput` of B rows, float32 tensors on the CPU."""

    def sizes_to_warm(self, largest: int) -> Iterable[int]:
        """Batch sizes whose first pass takes longer, among those that batches of up to `largest` need."""


@dataclass(frozen=True)
class EngineRequest:
    """What an engine is built from.

    Attributes:
        checkpoint: for a GPU, its model is on the device already.
        precision: of the features; `auto` leaves the choice to the engine.
        cache: folder in which compiled networks outlive the process; None keeps none.
        quantized: the folder `int8` of the checkpoint, which only that precision reads.
    """

    checkpoint: Checkpoint
    device: torch.device
    precision: PrecisionChoice = "auto"
    cache: Path | None = None
    quantized: Path | None = None


@dataclass(frozen=True)
class EngineFactory:
    """One kind of engine, as the registry lists it.

    Attributes:
        name: for the log.
        device: type of the devices that it runs on, as torch spells it.
        precisions: that it computes in.
        build: may raise ImportError where a package is missing, which costs only this engine.
        architectures: names of those that it can run; None means all.
        is_checked: whether it must agree with the reference at every start, because compilers and drivers of the
            machine decide what it computes. A failure of any kind then costs only this engine.
    """

    name: str
    device: Literal["cpu", "cuda"]
    precisions: frozenset[Precision]
    build: Callable[[EngineRequest], Engine]
    architectures: frozenset[str] | None = None
    is_checked: bool = False

    def is_for(self, request: EngineRequest) -> bool:
        """Whether it runs on the requested device, in the requested precision."""
        return self.device == request.device.type and request.precision in ("auto", *self.precisions)


def imported(function: str) -> Callable[[EngineRequest], Engine]:
    """A function of a module, `package.module:function`, that is imported when it is first called.

    The packages below an engine are large and may be missing: only the engine that serves is imported.
    """

    def build(request: EngineRequest) -> Engine:
        engine: Engine = resolve_name(function)(request)
        return engine

    return build
