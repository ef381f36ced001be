"""The Triton kernels compute what the formulas in torch say: interpreted without a GPU, compiled with one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import ROOT
from xray.engines.kernels_reference import TORCH_STEPS, Affine

pytestmark = pytest.mark.slow

pytest.importorskip("triton")

TOLERANCES = {"torch.float32": 1e-5, "torch.float16": 2**-9}
"""Of sums in another order, and of the last digit of half precision twice over."""
HOPPER = "90"
"""Compute capability of an H100 or H200."""
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels themselves are tested")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def said_without_gpu(arguments: list[str], cache: Path, **environment: str) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.xray.engines.triton_without_gpu", *arguments]
    variables = {**os.environ, "TRITON_CACHE_DIR": str(cache), **environment}
    done = subprocess.run(command, cwd=ROOT, env=variables, check=True, capture_output=True)
    said: dict[str, float] = json.loads(done.stdout)
    return said


@without_gpu
def test_interpreted_kernels_equal_the_formulas_for_all_widths_and_ragged_sizes(tmp_path: Path) -> None:
    differences = said_without_gpu(["interpret"], tmp_path, TRITON_INTERPRET="1")
    assert len(differences) == 4
    for step, found in differences.items():
        assert found < TOLERANCES[step.split()[-1]], step


def test_bottleneck_compiles_to_tensor_core_instructions_with_every_tile(tmp_path: Path) -> None:
    compiled = said_without_gpu(["compile", HOPPER], tmp_path)
    assert len(compiled) == 4
    assert all(compiled.values()), compiled


def test_tile_is_the_largest_that_leaves_no_multiprocessor_idle() -> None:
    from xray.engines.triton_kernels import TILES, tile_for

    assert [tile_for(pixels, processors=100) for pixels in (1, 1599, 3200, 6400, 12799, 12800, 10**6)] == [
        16, 16, 32, 64, 64, 128, 128
    ]  # fmt: skip
    assert list(TILES) == sorted(TILES, reverse=True)


@needs_gpu
@pytest.mark.parametrize("width", [64, 96, 608, 1888])
@pytest.mark.parametrize("pixels", [1, 49, 6_399, 100_003])
def test_bottleneck_on_the_gpu_equals_the_formula_in_bfloat16(pixels: int, width: int) -> None:
    from xray.engines.triton_kernels import TRITON_STEPS

    torch.manual_seed(0)
    buffer = torch.full((pixels, 1920), torch.nan, dtype=torch.bfloat16, device="cuda")
    rows = buffer[:, :width].normal_()
    norm = Affine(*torch.randn((2, width), device="cuda"))
    weight = (torch.randn((width, 128), device="cuda") / width**0.5).bfloat16()
    arguments = rows, norm, weight, torch.randn(128, device="cuda")
    found, expected = TRITON_STEPS.bottleneck(*arguments).float(), TORCH_STEPS.bottleneck(*arguments).float()
    assert torch.allclose(found, expected, rtol=2**-7, atol=2**-7)


@needs_gpu
@pytest.mark.parametrize("shape", [(3, 80, 80, 256), (2, 13, 7, 1792), (1, 2, 2, 64)])
def test_shrink_on_the_gpu_equals_the_formula_in_bfloat16(shape: tuple[int, ...]) -> None:
    from xray.engines.triton_kernels import TRITON_STEPS

    torch.manual_seed(0)
    x, norm = torch.randn(shape, device="cuda").bfloat16(), Affine(*torch.randn((2, shape[-1]), device="cuda"))
    found, expected = TRITON_STEPS.shrink(x, norm).float(), TORCH_STEPS.shrink(x, norm).float()
    assert torch.allclose(found, expected, rtol=2**-7, atol=2**-7)
