"""The fused steps of the restructured DenseNet as Triton kernels: maps are read once in 16 bits, summed in float32.

Legend: B batch, h, w cells of a map, P = B h w pixels of a batch, C input channels, K output channels, T pixels of a
tile, S channels of a slice.
"""

import functools

import torch
from torch import Tensor

from xray.engines.kernels_reference import Affine, Steps

try:
    import triton
    from triton import language as tl
except ImportError as error:
    raise ImportError("The fused GPU engine needs Triton, which is not installed; install triton.") from error

SLICE = 64
"""Number of channels that a program multiplies at a time; DenseNet's channel counts are multiples of 32."""
TILES = {128: 8, 64: 4, 32: 4, 16: 4}
"""Number of warps of a program by the pixels of its tile, largest first. Large tiles read the weights less often."""
STAGES = 3
"""Number of slices in flight: a program loads the next ones while it multiplies one."""


@triton.jit
def _bottleneck(  # noqa: PLR0913 - each pointer and stride is a parameter
    x_ptr, scale_ptr, shift_ptr, weight_ptr, bias_ptr, out_ptr,
    pixels, channels, row_stride,
    K: tl.constexpr, TILE: tl.constexpr, SLICE: tl.constexpr,
):  # fmt: skip
    rows_T = tl.program_id(0) * TILE + tl.arange(0, TILE)
    outs_K = tl.arange(0, K)
    inside_T = rows_T < pixels
    x_T = x_ptr + rows_T.to(tl.int64) * row_stride  # a large batch's buffer has more than 2^31 elements
    sums_TK = tl.zeros((TILE, K), tl.float32)
    for start in range(0, channels, SLICE):
        columns_S = start + tl.arange(0, SLICE)
        known_S = columns_S < channels
        x_TS = tl.load(x_T[:, None] + columns_S[None, :], inside_T[:, None] & known_S[None, :], 0.0)
        scale_S = tl.load(scale_ptr + columns_S, known_S, 0.0)
        shift_S = tl.load(shift_ptr + columns_S, known_S, 0.0)
        active_TS = tl.maximum(x_TS.to(tl.float32) * scale_S[None, :] + shift_S[None, :], 0.0)
        weight_SK = tl.load(weight_ptr + columns_S[:, None] * K + outs_K[None, :], known_S[:, None], 0.0)
        sums_TK = tl.dot(active_TS.to(weight_SK.dtype), weight_SK, sums_TK, input_precision="ieee")
    sums_TK = tl.maximum(sums_TK + tl.load(bias_ptr + outs_K)[None, :], 0.0)
    out_TK = out_ptr + rows_T.to(tl.int64)[:, None] * K + outs_K[None, :]
    tl.store(out_TK, sums_TK.to(out_ptr.dtype.element_ty), inside_T[:, None])


@triton.jit
def _shrink(  # noqa: PLR0913 - each pointer and stride is a parameter
    x_ptr, scale_ptr, shift_ptr, out_ptr,
    pixels, height, width, channels,
    TILE: tl.constexpr, SLICE: tl.constexpr,
):  # fmt: skip
    rows_T = tl.program_id(0) * TILE + tl.arange(0, TILE)
    columns_S = tl.program_id(1) * SLICE + tl.arange(0, SLICE)
    known_S = columns_S < channels
    known_TS = (rows_T < pixels)[:, None] & known_S[None, :]
    scale_S = tl.load(scale_ptr + columns_S, known_S, 0.0)
    shift_S = tl.load(shift_ptr + columns_S, known_S, 0.0)
    across_T, down_T = rows_T % (width // 2), rows_T // (width // 2)
    image_T, down_T = down_T // (height // 2), down_T % (height // 2)
    first_T = (image_T.to(tl.int64) * height + 2 * down_T) * width + 2 * across_T
    sums_TS = tl.zeros((TILE, SLICE), tl.float32)
    for row in tl.static_range(2):
        for column in tl.static_range(2):
            x_T = x_ptr + (first_T + row * width + column) * channels
            x_TS = tl.load(x_T[:, None] + columns_S[None, :], known_TS, 0.0)
            sums_TS += tl.maximum(x_TS.to(tl.float32) * scale_S[None, :] + shift_S[None, :], 0.0)
    out_TS = out_ptr + rows_T.to(tl.int64)[:, None] * channels + columns_S[None, :]
    tl.store(out_TS, (0.25 * sums_TS).to(out_ptr.dtype.element_ty), known_TS)


def bottleneck(x_PC: Tensor, norm: Affine, weight_CK: Tensor, bias_K: Tensor) -> Tensor:
    """Compute `Steps.bottleneck` in Triton: (P, C) to (P, K). K is a power of two, at least 16; DenseNet's is 128."""
    (pixels, channels), width = x_PC.shape, weight_CK.shape[1]
    out_PK = torch.empty((pixels, width), dtype=weight_CK.dtype, device=x_PC.device)
    tile = tile_for(pixels, _processors(x_PC.device))
    _bottleneck[(triton.cdiv(pixels, tile),)](
        x_PC, norm.scale_C, norm.shift_C, weight_CK, bias_K, out_PK,
        pixels, channels, x_PC.stride(0),
        K=width, TILE=tile, SLICE=SLICE, num_warps=TILES[tile], num_stages=STAGES,
    )  # fmt: skip
    return out_PK


def shrink(x_BhwC: Tensor, norm: Affine) -> Tensor:
    """Compute `Steps.shrink` in Triton: contiguous (B, h, w, C) to (B, h // 2, w // 2, C)."""
    batch, height, width, channels = x_BhwC.shape
    out_BhwC = x_BhwC.new_empty((batch, height // 2, width // 2, channels))
    pixels, tile = batch * (height // 2) * (width // 2), min(TILES)
    _shrink[(triton.cdiv(pixels, tile), triton.cdiv(channels, SLICE))](
        x_BhwC, norm.scale_C, norm.shift_C, out_BhwC, pixels, height, width, channels, TILE=tile, SLICE=SLICE
    )
    return out_BhwC


def tile_for(pixels: int, processors: int) -> int:
    """Return the pixels of the largest Triton tile that keeps all multiprocessors busy, or else of the smallest."""
    return next((tile for tile in TILES if pixels >= tile * processors), min(TILES))


@functools.cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


TRITON_STEPS = Steps(bottleneck, shrink)
