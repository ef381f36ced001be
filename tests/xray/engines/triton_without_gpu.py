"""What a machine without a GPU can say about the Triton kernels, as JSON; `test_triton_kernels` runs this.

`interpret` (with TRITON_INTERPRET=1): the largest differences from the formulas in torch. `compile`: which instructions
the compiler chose for a GPU that is not there.
"""

import json
import sys
from collections.abc import Iterator

import torch
from torch import Tensor

from xray.engines import triton_kernels
from xray.engines.kernels_reference import TORCH_STEPS, Affine
from xray.engines.triton_kernels import TRITON_STEPS

WIDTHS = range(64, 1889, 32)
"""Input channels of DenseNet-201's layers."""
PIXELS = (1, 9, 16, 33, 12, 130, 5)
"""All but one are no multiple of their tile, from 16 to 128."""
BUFFER = 1920
MAPS = ((2, 5, 7, 96), (1, 8, 8, 256), (3, 2, 2, 64), (1, 11, 4, 1792))
"""B, h, w, C, with odd sides and slices that are not full."""


def interpret() -> dict[str, float]:
    generator = torch.Generator().manual_seed(0)
    return {
        f"{step} in {dtype}": max(differences(generator, dtype))
        for dtype in (torch.float32, torch.float16)
        for step, differences in (("bottleneck", _of_bottlenecks), ("shrink", _of_shrinks))
    }


def _of_bottlenecks(generator: torch.Generator, dtype: torch.dtype) -> Iterator[float]:
    for place, width in enumerate(WIDTHS[dtype == torch.float16 :: 2]):
        buffer = torch.full((PIXELS[place % len(PIXELS)], BUFFER), torch.nan, dtype=dtype)
        rows = buffer[:, :width].normal_(generator=generator)  # what later layers write there is not to be read
        weight = (torch.randn((width, 128), generator=generator) / width**0.5).to(dtype)
        arguments = rows, _affine(width, generator), weight, torch.randn(128, generator=generator)
        yield _difference(TRITON_STEPS.bottleneck(*arguments), TORCH_STEPS.bottleneck(*arguments))


def _of_shrinks(generator: torch.Generator, dtype: torch.dtype) -> Iterator[float]:
    for shape in MAPS:
        arguments = torch.randn(shape, generator=generator).to(dtype), _affine(shape[-1], generator)
        yield _difference(TRITON_STEPS.shrink(*arguments), TORCH_STEPS.shrink(*arguments))


def _affine(channels: int, generator: torch.Generator) -> Affine:
    return Affine(*torch.randn((2, channels), generator=generator))


def _difference(found: Tensor, expected: Tensor) -> float:
    """The largest, in units of the larger of 1 and what is expected; infinite where one is no number."""
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    apart = (found.float() - expected.float()).abs() / expected.float().abs().clamp_min(1)
    return float(apart.nan_to_num(torch.inf).max())


def compile_for(capability: int) -> dict[int, bool]:
    """Whether the bottleneck multiplies in tensor cores, by tile."""
    instructions = ("mma.sync", "wgmma", "tcgen05")
    assemblies = {tile: _assembly(capability, tile) for tile in triton_kernels.TILES}
    return {tile: any(name in assembly for name in instructions) for tile, assembly in assemblies.items()}


def _assembly(capability: int, tile: int) -> str:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {"K": 128, "TILE": tile, "SLICE": triton_kernels.SLICE}
    types = {"x_ptr": "*bf16", "weight_ptr": "*bf16", "out_ptr": "*bf16", "pixels": "i32", "channels": "i32"}
    types |= {"row_stride": "i32"} | dict.fromkeys(constants, "constexpr")
    names = triton_kernels._bottleneck.arg_names
    divisible = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if name not in constants}
    source = ASTSource(
        triton_kernels._bottleneck,
        {name: types.get(name, "*fp32") for name in names},
        {(names.index(name),): value for name, value in constants.items()},
        {place: how for place, how in divisible.items() if names[place[0]] != "pixels"},
    )
    options = {"num_warps": triton_kernels.TILES[tile], "num_stages": triton_kernels.STAGES}
    return str(triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["ptx"])


if __name__ == "__main__":
    print(json.dumps(interpret() if sys.argv[1] == "interpret" else compile_for(int(sys.argv[2]))))
