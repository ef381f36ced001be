"""The forward pass on an NVIDIA GPU: features in 16 bits, head in float32, one CUDA graph a batch size.

A radiograph goes to the GPU as one byte a pixel, and all that it says comes back in one piece.

Legend: B batch, S canvas side, C = D channels of the last feature map, h = w its cells, N = 1 + D + h w.
"""

import copy
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from xray.engines.cuda_graphs import GraphRunner
from xray.engines.fused_densenet import STEM_TYPES, FusedDenseNet
from xray.images.radiograph import PixelArray
from xray.network.checkpoint import Checkpoint
from xray.network.model import ModelOutput, XrayNetwork

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Of the graphs, ascending: a batch is padded to the next one, and cut where it is larger than the last."""

Network = Callable[[Tensor], ModelOutput]
Runner = Callable[[PixelArray, int], Tensor]
"""uint8 (B, 1, S, S) and the batch size to run it in, to what `pack` made of its B rows, on the CPU."""


class CudaEngine:
    """Cuts batches to the sizes that a runner has and reads its results."""

    def __init__(self, name: str, run: Runner, dimensions: int) -> None:
        """`dimensions` is D."""
        self._name, self._run, self._dimensions = name, run, dimensions

    @property
    def name(self) -> str:
        return self._name

    def sizes_to_warm(self, largest: int) -> list[int]:
        """Those of the graphs that batches up to the largest need."""
        return [size for size in BATCH_SIZES if size < 2 * largest]

    def forward(self, pixels_B1SS: PixelArray) -> ModelOutput:
        outputs = [
            unpack(self._run(pixels_B1SS[rows], size), self._dimensions) for rows, size in cuts(len(pixels_B1SS))
        ]
        return outputs[0] if len(outputs) == 1 else _joined(outputs)


class Bf16Network(nn.Module):
    """The model's own layers with convolutions in 16 bits, channels last; batch norms and head stay in float32."""

    def __init__(self, model: XrayNetwork) -> None:
        """Copies the features; the model stays as it is."""
        super().__init__()
        self.model = model
        features = copy.deepcopy(model.features).to(memory_format=torch.channels_last)
        self.stem_type = STEM_TYPES[torch.bfloat16]
        stem_length = model.backbone.stem_length
        self.stem = _convolving_in(self.stem_type, features[:stem_length])
        self.rest = _convolving_in(torch.bfloat16, features[stem_length:])

    def forward(self, pixels_B1SS: Tensor) -> ModelOutput:
        """uint8 (B, 1, S, S) to a `ModelOutput` of B rows."""
        gray_B3SS = self.model.normalise(pixels_B1SS).to(self.stem_type).expand(-1, 3, -1, -1)
        stem_BChw = self.stem(gray_B3SS.contiguous(memory_format=torch.channels_last))
        return self.model.forward_head(self.rest(stem_BChw.bfloat16()))


def fused_engine(checkpoint: Checkpoint, device: torch.device) -> CudaEngine:
    """The restructured network with Triton's steps, the checkpoint's model being on the device.

    Raises:
        ImportError: Triton is not installed.
    """
    from xray.engines.triton_kernels import TRITON_STEPS

    network = FusedDenseNet(checkpoint.model, torch.bfloat16, TRITON_STEPS)
    return _engine("cuda-bfloat16-fused", network, checkpoint, device)


def graphs_engine(checkpoint: Checkpoint, device: torch.device) -> CudaEngine:
    """torch's own layers, the checkpoint's model being on the device."""
    return _engine("cuda-bfloat16-graphs", Bf16Network(checkpoint.model).eval(), checkpoint, device)


def cuts(count: int) -> Iterator[tuple[slice, int]]:
    """The rows of each pass over a batch of `count`, and the batch size to run them in."""
    for start in range(0, count, BATCH_SIZES[-1]):
        stop = min(count, start + BATCH_SIZES[-1])
        yield slice(start, stop), next(size for size in BATCH_SIZES if size >= stop - start)


def pack(output: ModelOutput) -> Tensor:
    """An output as float32 (B, N), so that it leaves the GPU in one copy."""
    columns = output.logits_B[:, None], output.attentions_B[:, None]
    return torch.cat([*columns, output.embeddings_BD, output.cams_Bhw.flatten(1)], dim=1)


def unpack(packed_BN: Tensor, dimensions: int) -> ModelOutput:
    """What went into `pack`, in memory of its own; canvases are square, and so are the maps."""
    widths = [1, 1, dimensions, packed_BN.shape[1] - 2 - dimensions]
    logits_B1, attentions_B1, embeddings_BD, cells_BN = (
        part.clone(memory_format=torch.contiguous_format) for part in torch.split(packed_BN, widths, dim=1)
    )
    side = math.isqrt(cells_BN.shape[1])
    return ModelOutput(logits_B1[:, 0], embeddings_BD, cells_BN.view(-1, side, side), attentions_B1[:, 0])


def _engine(name: str, network: Network, checkpoint: Checkpoint, device: torch.device) -> CudaEngine:
    run = GraphRunner(lambda pixels_B1SS: pack(network(pixels_B1SS)), device)
    return CudaEngine(name, run, checkpoint.model.classifier.in_features)


def _convolving_in(dtype: torch.dtype, features: nn.Module) -> nn.Module:
    for module in features.modules():
        if isinstance(module, nn.Conv2d):
            module.to(dtype)
    return features


def _joined(outputs: list[ModelOutput]) -> ModelOutput:
    return ModelOutput(
        torch.cat([output.logits_B for output in outputs]),
        torch.cat([output.embeddings_BD for output in outputs]),
        torch.cat([output.cams_Bhw for output in outputs]),
        torch.cat([output.attentions_B for output in outputs]),
    )
