"""The forward pass on a device, behind one small interface.

Legend: B batch, S canvas side.
"""

from typing import Literal, Protocol

import torch

from xray.checkpoint import Checkpoint
from xray.errors import InputError
from xray.image import PixelArray
from xray.model import ModelOutput

DeviceChoice = Literal["auto", "cuda", "cpu"]


class Engine(Protocol):
    """Whatever can run the network. One thread calls it at a time."""

    @property
    def name(self) -> str:
        """What runs where, for `/info`: `torch-float32-cpu`."""

    def forward(self, pixels_B1SS: PixelArray) -> ModelOutput:
        """uint8 (B, 1, S, S) to a `ModelOutput` of float32 tensors on the CPU."""


class TorchEngine:
    """The reference: eager torch in float32 on any device."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self.device = device
        self.model = checkpoint.model.to(device).to(memory_format=torch.channels_last).eval()

    @property
    def name(self) -> str:
        return f"torch-float32-{self.device.type}"

    @torch.inference_mode()
    def forward(self, pixels_B1SS: PixelArray) -> ModelOutput:
        output = self.model(torch.from_numpy(pixels_B1SS).to(self.device))
        return ModelOutput(output.logits_B.cpu(), output.embeddings_BD.cpu(), output.cams_Bhw.cpu())


def choose_device(choice: DeviceChoice) -> torch.device:
    """`auto` takes the GPU when there is one.

    Raises:
        InputError: `cuda` was asked for and torch sees no GPU.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise InputError("The device is set to cuda, but torch sees no GPU; use auto or cpu, or mend the driver.")
    return torch.device("cuda" if choice != "cpu" and torch.cuda.is_available() else "cpu")


def load_engine(checkpoint: Checkpoint, choice: DeviceChoice) -> Engine:
    """The engine that serves a checkpoint on the chosen device."""
    return TorchEngine(checkpoint, choose_device(choice))
