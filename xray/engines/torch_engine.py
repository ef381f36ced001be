"""The forward pass in eager torch: the reference that every other engine is compared with, on any device.

Legend: B batch, S canvas side.
"""

import torch

from xray.engines.base import Precision
from xray.images.radiograph import PixelArray
from xray.network.checkpoint import Checkpoint
from xray.network.model import ModelOutput


class TorchEngine:
    """Runs the network in eager torch, in float32 without compilation, on any device: the reference engine."""

    precision: Precision = "float32"

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        """Move the checkpoint's model to the device."""
        self.device = device
        self.model = checkpoint.model.to(device).to(memory_format=torch.channels_last).eval()

    @property
    def name(self) -> str:
        """The reference engine's name: `torch-float32-cpu` or `torch-float32-cuda`."""
        return f"torch-float32-{self.device.type}"

    def sizes_to_warm(self, largest: int) -> set[int]:
        """Return the smallest and the largest batch size, to warm eager torch."""
        return {1, largest}

    @torch.inference_mode()
    def forward(self, pixels_B1SS: PixelArray) -> ModelOutput:
        """Run the network in eager torch: uint8 (B, 1, S, S) to a `ModelOutput` of B rows on the CPU."""
        # Without this, cuDNN rounds the operands of convolutions to 10 bits of mantissa (TF32) on a GPU.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            output: ModelOutput = self.model(torch.from_numpy(pixels_B1SS).to(self.device))
        return output.cpu()
