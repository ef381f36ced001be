"""The forward pass in eager torch: the reference that every other engine is compared with, on any device.

Legend: B batch, S canvas side.
"""

import torch

from xray.images.radiograph import PixelArray
from xray.network.checkpoint import Checkpoint
from xray.network.model import ModelOutput


class TorchEngine:
    """float32 arithmetic, no compilation."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device) -> None:
        self.device = device
        self.model = checkpoint.model.to(device).to(memory_format=torch.channels_last).eval()

    @property
    def name(self) -> str:
        return f"torch-float32-{self.device.type}"

    def sizes_to_warm(self, largest: int) -> set[int]:
        return {1, largest}

    @torch.inference_mode()
    def forward(self, pixels_B1SS: PixelArray) -> ModelOutput:
        # On a GPU cuDNN would round convolutions' operands to 10 bits of mantissa (TF32), which is no reference.
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            output: ModelOutput = self.model(torch.from_numpy(pixels_B1SS).to(self.device))
        return output.cpu()
