"""The forward pass behind one small interface, and which engine runs it where.

    Engine             uint8 batch in, ModelOutput out
    ├── TorchEngine    the reference: float32 on any device
    └── OpenVinoEngine the CPU's

Legend: B batch, S canvas side.
"""

import logging
from pathlib import Path
from tempfile import TemporaryFile
from typing import Literal, Protocol

import torch

from xray.checkpoint import Checkpoint
from xray.errors import InputError
from xray.image import PixelArray
from xray.model import ModelOutput
from xray.torch_engine import TorchEngine

DeviceChoice = Literal["auto", "cuda", "cpu"]
PrecisionChoice = Literal["auto", "float32", "bfloat16"]

logger = logging.getLogger(__name__)


class Engine(Protocol):
    """Whatever can run the network. One thread calls it at a time."""

    @property
    def name(self) -> str:
        """What runs where, for `/info`: `openvino-bfloat16-cpu`."""

    def forward(self, pixels_B1SS: PixelArray) -> ModelOutput:
        """uint8 (B, 1, S, S) to a `ModelOutput` of float32 tensors on the CPU."""


def choose_device(choice: DeviceChoice) -> torch.device:
    """`auto` takes the GPU when there is one.

    Raises:
        InputError: `cuda` was asked for and torch sees no GPU.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise InputError("The device is set to cuda, but torch sees no GPU; use auto or cpu, or mend the driver.")
    return torch.device("cuda" if choice != "cpu" and torch.cuda.is_available() else "cpu")


def load_engine(
    checkpoint: Checkpoint, choice: DeviceChoice, precision: PrecisionChoice = "auto", cache: Path | None = None
) -> Engine:
    """The fastest engine for a checkpoint on the chosen device.

    Args:
        precision: of the features' arithmetic on a CPU; `auto` takes the fastest that the processor has.
        cache: folder in which compiled networks outlive the process.

    Raises:
        InputError: the device is not there.
    """
    device = choose_device(choice)
    if device.type == "cuda":
        return TorchEngine(checkpoint, device)
    try:
        from xray.openvino_engine import OpenVinoEngine, best_precision
    except ImportError as error:
        logger.warning("%s Until then torch runs the network, several times slower.", error)
        return TorchEngine(checkpoint, device)
    return OpenVinoEngine(checkpoint, best_precision() if precision == "auto" else precision, _writable(cache))


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
