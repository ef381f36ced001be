"""The interface of an engine, which runs the network's forward pass on one device, in one precision.

    Engine                 turns a uint8 batch into a ModelOutput
    ├── TorchEngine        the reference: float32 on any device
    ├── OpenVinoEngine     on a CPU: float32, bfloat16, or int8 if the network was quantized for it
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
    """The interface of every engine, which runs the network. Only one thread may call it at a time."""

    @property
    def name(self) -> str:
        """The engine's name in `/info` and the metrics, such as `openvino-bfloat16-cpu`."""

    @property
    def device(self) -> torch.device:
        """The device on which the engine computes the features."""

    @property
    def precision(self) -> Precision:
        """The precision in which the engine computes the features; the head is in float32 in every engine."""

    def forward(self, pixels_B1SS: PixelArray) -> ModelOutput:
        """Run an engine: map uint8 (B, 1, S, S) to a `ModelOutput` of B rows, float32 tensors on the CPU."""

    def sizes_to_warm(self, largest: int) -> Iterable[int]:
        """Return the batch sizes up to `largest` whose first pass takes an engine longer than later ones."""


@dataclass(frozen=True)
class EngineRequest:
    """The arguments from which any engine is built.

    Attributes:
        checkpoint: the network; for a GPU, it is already on the device.
        precision: precision of the features; `auto` leaves the choice to the engine.
        cache: folder that keeps compiled networks for later starts; None keeps none.
        quantized: the folder `int8` of the checkpoint, which is only needed for that precision.
    """

    checkpoint: Checkpoint
    device: torch.device
    precision: PrecisionChoice = "auto"
    cache: Path | None = None
    quantized: Path | None = None


@dataclass(frozen=True)
class EngineFactory:
    """The interface through which the engines of one kind are built, with the devices and precisions they are for.

    Attributes:
        name: name in the log.
        device: type of the devices on which it runs, as named by torch.
        precisions: the precisions in which it computes.
        build: builds the engine. If it raises ImportError because a package is missing, the next engine is tried.
        architectures: names of the architectures that it can run; None means all.
        is_checked: whether it must agree with the reference at every start, because its result depends on the
            machine's compilers and drivers. If the check or anything else fails, the next engine is tried.
    """

    name: str
    device: Literal["cpu", "cuda"]
    precisions: frozenset[Precision]
    build: Callable[[EngineRequest], Engine]
    architectures: frozenset[str] | None = None
    is_checked: bool = False

    def is_for(self, request: EngineRequest) -> bool:
        """Return whether this kind of engine runs on the requested device in the requested precision."""
        return self.device == request.device.type and request.precision in ("auto", *self.precisions)


def imported(function: str) -> Callable[[EngineRequest], Engine]:
    """Return a function with the interface to build an engine; it imports `package.module:function` on its first call.

    The packages that an engine needs are large and may be missing, so only the engine in use is imported.
    """

    def build(request: EngineRequest) -> Engine:
        engine: Engine = resolve_name(function)(request)
        return engine

    return build
