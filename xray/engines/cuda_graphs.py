"""The thin layer that only a GPU can run: a network as one CUDA graph a batch size, pinned memory on either side.

DenseNet-201 is hundreds of short kernels, which a processor launches more slowly than a GPU runs them; a graph is
launched once. How a batch is cut to the sizes of the graphs is `cuda_engine`'s affair.

Legend: B batch, S canvas side, N numbers of a radiograph's result.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from xray.images.radiograph import PixelArray

WARM_UPS = 3
"""Passes before a capture, in which cuDNN chooses its algorithms and Triton compiles: neither can be captured."""


@dataclass(frozen=True)
class _Captured:
    """A graph and the memory that it reads and writes, all of one batch size.

    Attributes:
        staging_B1SS, results_BN: pinned, so that the GPU copies without the processor.
        pixels_B1SS, packed_BN: on the GPU.
    """

    graph: torch.cuda.CUDAGraph
    staging_B1SS: Tensor
    pixels_B1SS: Tensor
    packed_BN: Tensor
    results_BN: Tensor


class GraphRunner:
    """Runs a network on one stream; a batch size's graph is captured when it is first asked for.

    All graphs share one pool of memory, which is safe because none runs while another does and each one's result is
    copied out before the next starts.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], device: torch.device) -> None:
        """`network` turns uint8 (B, 1, S, S) on the device into float32 (B, N) there, without waiting for it."""
        self._network, self._device = network, device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        self._captured: dict[int, _Captured] = {}
        torch.cuda.synchronize(device)  # the network's weights were prepared on another stream

    @torch.inference_mode()
    def __call__(self, pixels_B1SS: PixelArray, size: int) -> Tensor:
        """uint8 (B, 1, S, S) to float32 (B, N) on the CPU, in memory that the next call overwrites.

        Args:
            size: B or more: of the graph to run, whose last rows repeat what an earlier batch left there.

        Raises:
            RuntimeError: CUDA has failed. After some errors nothing runs on the GPU until the process starts anew.
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
            # "thread_local": other threads may go on using CUDA during the capture.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                packed_BN = self._network(pixels_B1SS)
        return _Captured(
            graph,
            torch.empty(shape, dtype=torch.uint8, pin_memory=True),
            pixels_B1SS,
            packed_BN,
            torch.empty(packed_BN.shape, pin_memory=True),
        )
