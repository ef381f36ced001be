"""The interface of an engine, which runs the network's forward pass on one device, in one precision.

    Engine                 turns a uint8 batch into a ModelOutput
    ├── TorchEngine        the reference: float32 on any device
    ├── OpenVinoEngine     on a CPU: float32, bfloat16, or int8 if the network was quantized for it
    └── CudaEngine         on an NVIDIA GPU: bfloat16

Legend: B batch, S canvas side.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
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
    """

    checkpoint: Checkpoint
    device: torch.device
    precision: PrecisionChoice = "auto"
    cache: Path | None = None
