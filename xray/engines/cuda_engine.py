"""The forward pass on an NVIDIA GPU: features in 16 bits, head in float32, one CUDA graph per batch size.

DenseNet-201 consists of hundreds of short kernels, which a GPU runs faster than the CPU can launch them; a graph is
launched only once. Pixels go to the GPU as one byte each, and all outputs of a batch come back in one copy.

`CudaEngine` cuts batches to the sizes of the graphs and can be tested without a GPU; `GraphRunner` needs one.

Legend: B batch, S canvas side, C = D channels of the last feature map, h = w its cells, N = 2 + D + h w numbers of a
radiograph's outputs.
"""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xray.engines.base import EngineRequest, Precision
from xray.engines.batch_inference import concatenate
from xray.engines.fused_densenet import STEM_TYPES, FusedDenseNet
from xray.errors import ArtifactError
from xray.images.radiograph import PixelArray
from xray.network.backbones.densenet import LAYERS
from xray.network.model import ModelOutput, XrayNetwork

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Batch sizes of the graphs, ascending. A batch is padded to the next size, and cut if it is larger than the last."""
WARM_UPS = 3
"""Passes before a capture. In them cuDNN chooses its algorithms and Triton compiles, which cannot be captured."""

Network = Callable[[Tensor], ModelOutput]
Runner = Callable[[PixelArray, int], Tensor]
"""A function of uint8 (B, 1, S, S) and the batch size to run; it returns the B rows of `pack`'s result, on the CPU."""


class CudaEngine:
    """The engine on an NVIDIA GPU: cuts batches to the sizes that a runner has and unpacks its results."""

    precision: Precision = "bfloat16"

    def __init__(self, name: str, device: torch.device, run: Runner, dimensions: int) -> None:
        """Wrap a runner.

        Args:
            name: what `/info` and the metrics show.
            dimensions: D, the length of an embedding.
        """
        self.name = name
        self.device = device
        self._run = run
        self._dimensions = dimensions

    def sizes_to_warm(self, largest: int) -> list[int]:
        """Return the batch sizes of the CUDA graphs for batches of up to `largest`."""
        return [size for size in BATCH_SIZES if size < 2 * largest]

    def forward(self, pixels_B1SS: PixelArray) -> ModelOutput:
        """Run the GPU's graphs: map uint8 (B, 1, S, S) to a `ModelOutput` of B rows on the CPU."""
        outputs = [
            unpack(self._run(pixels_B1SS[rows], size), self._dimensions) for rows, size in cuts(len(pixels_B1SS))
        ]
        return outputs[0] if len(outputs) == 1 else concatenate(outputs)


class Bf16Network(nn.Module):
    """The model's own layers for the GPU, channels last: convolutions in 16 bits, batch norms and head in float32."""

    def __init__(self, model: XrayNetwork) -> None:
        """Copy the features; the model is not changed."""
        super().__init__()
        self.model = model
        features = copy.deepcopy(model.features).to(memory_format=torch.channels_last)
        self.stem_type = STEM_TYPES[torch.bfloat16]
        stem_length = model.backbone.stem_length
        self.stem = _convolving_in(self.stem_type, features[:stem_length])
        self.rest = _convolving_in(torch.bfloat16, features[stem_length:])

    def forward(self, pixels_B1SS: Tensor) -> ModelOutput:
        """Run the 16-bit layers on the GPU: map uint8 (B, 1, S, S) to a `ModelOutput` of B rows."""
        gray_B3SS = self.model.normalize(pixels_B1SS).to(self.stem_type).expand(-1, 3, -1, -1)
        stem_BChw = self.stem(gray_B3SS.contiguous(memory_format=torch.channels_last))
        return self.model.forward_head(self.rest(stem_BChw.bfloat16()))


def build_fused(request: EngineRequest) -> CudaEngine:
    """Build a CUDA engine for the restructured DenseNet with Triton kernels.

    Raises:
        ArtifactError: the checkpoint is not a DenseNet.
        ImportError: Triton is not installed.
    """
    architecture = request.checkpoint.manifest.architecture
    if architecture not in LAYERS:
        raise ArtifactError(f"The fused engine runs {', '.join(LAYERS)} only, not {architecture}; use the CUDA graphs.")
    from xray.engines.triton_kernels import TRITON_STEPS

    network = FusedDenseNet(request.checkpoint.model, torch.bfloat16, TRITON_STEPS)
    return _engine("cuda-bfloat16-fused", network, request)


def build_graphs(request: EngineRequest) -> CudaEngine:
    """Build a CUDA engine with torch's own layers, for any architecture."""
    return _engine("cuda-bfloat16-graphs", Bf16Network(request.checkpoint.model).eval(), request)


def cuts(count: int) -> Iterator[tuple[slice, int]]:
    """Yield the rows of each pass over a batch of `count` rows, and the batch size of the CUDA graph for them."""
    for start in range(0, count, BATCH_SIZES[-1]):
        stop = min(count, start + BATCH_SIZES[-1])
        yield slice(start, stop), next(size for size in BATCH_SIZES if size >= stop - start)


def pack(output: ModelOutput) -> Tensor:
    """Pack the CUDA engine's output into one float32 tensor (B, N), so that it leaves the GPU in one copy."""
    columns = output.logits_B[:, None], output.attentions_B[:, None]
    return torch.cat([*columns, output.embeddings_BD, output.cams_Bhw.flatten(1)], dim=1)


def unpack(packed_BN: Tensor, dimensions: int) -> ModelOutput:
    """Turn a tensor (B, N) copied from the CUDA engine's GPU into a `ModelOutput` in new memory: the inverse of `pack`.

    Maps are square because canvases are.
    """
    widths = [1, 1, dimensions, packed_BN.shape[1] - 2 - dimensions]
    logits_B1, attentions_B1, embeddings_BD, cells_BN = (
        part.clone(memory_format=torch.contiguous_format) for part in torch.split(packed_BN, widths, dim=1)
    )
    side = math.isqrt(cells_BN.shape[1])
    return ModelOutput(logits_B1[:, 0], embeddings_BD, cells_BN.view(-1, side, side), attentions_B1[:, 0])


def _engine(name: str, network: Network, request: EngineRequest) -> CudaEngine:
    run = GraphRunner(lambda pixels_B1SS: pack(network(pixels_B1SS)), request.device)
    return CudaEngine(name, request.device, run, request.checkpoint.model.classifier.in_features)


def _convolving_in(dtype: torch.dtype, features: nn.Module) -> nn.Module:
    for module in features.modules():
        if isinstance(module, nn.Conv2d):
            module.to(dtype)
    return features


@dataclass(frozen=True)
class _Captured:
    """The graph of one batch size, and the memory that it reads and writes.

    Attributes:
        staging_B1SS, results_BN: in pinned host memory, so that the GPU copies without the CPU.
        pixels_B1SS, packed_BN: on the GPU.
    """

    graph: torch.cuda.CUDAGraph
    staging_B1SS: Tensor
    pixels_B1SS: Tensor
    packed_BN: Tensor
    results_BN: Tensor


class GraphRunner:
    """Runs a network on one CUDA stream; the graph of a batch size is captured on its first use.

    All graphs share one pool of memory. This is safe because they run one at a time, and each result is copied out
    before the next graph starts.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], device: torch.device) -> None:
        """Wrap a network, which maps uint8 (B, 1, S, S) to float32 (B, N) on the device without synchronizing."""
        self._network, self._device = network, device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        self._captured: dict[int, _Captured] = {}
        torch.cuda.synchronize(device)  # the network's weights were prepared on another stream

    @torch.inference_mode()
    def __call__(self, pixels_B1SS: PixelArray, size: int) -> Tensor:
        """Map uint8 (B, 1, S, S) to float32 (B, N) on the CPU, in memory that the next call overwrites.

        Args:
            size: batch size of the graph to run, at least B; the surplus rows contain data of an earlier batch.

        Raises:
            RuntimeError: CUDA has failed. After some errors, the GPU cannot be used until the process is restarted.
        """
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            count, side = len(pixels_B1SS), pixels_B1SS.shape[-1]
            if size not in self._captured:
                self._captured[size] = self._capture(size, side)
            captured = self._captured[size]
            captured.staging_B1SS[:count].copy_(torch.from_numpy(pixels_B1SS))
            captured.pixels_B1SS[:count].copy_(captured.staging_B1SS[:count], non_blocking=True)
            captured.graph.replay()
            captured.results_BN[:count].copy_(captured.packed_BN[:count], non_blocking=True)
            self._stream.synchronize()
            return captured.results_BN[:count]

    def _capture(self, size: int, side: int) -> _Captured:
        shape = (size, 1, side, side)
        pixels_B1SS = torch.zeros(shape, dtype=torch.uint8, device=self._device)
        graph = torch.cuda.CUDAGraph()
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            for _ in range(WARM_UPS):
                self._network(pixels_B1SS)
            # "thread_local": other threads may use CUDA during the capture.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                packed_BN = self._network(pixels_B1SS)
        return _Captured(
            graph,
            torch.empty(shape, dtype=torch.uint8, pin_memory=True),
            pixels_B1SS,
            packed_BN,
            torch.empty(packed_BN.shape, pin_memory=True),
        )
