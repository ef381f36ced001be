"""A dataset that goes through the network in batches gets the outputs of one radiograph at a time, in order."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.phantoms import draw_phantom
from xray.engines.base import Precision
from xray.engines.batch_inference import (
    Canvas,
    concatenate,
    infer_in_batches,
    prepare_ahead,
    select_rows,
)
from xray.engines.registry import load_engine
from xray.images.radiograph import PixelArray, Radiograph
from xray.network.checkpoint import load_checkpoint
from xray.network.model import ModelOutput
from xray.predictor import Predictor

COUNT = 11
"""Radiographs: two full batches of 4 and one that is not."""


@pytest.mark.slow
def test_batches_give_what_one_radiograph_at_a_time_gives(tiny_checkpoint: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    predictor = Predictor(checkpoint.manifest, load_engine(checkpoint, "cpu"))
    radiographs = [Radiograph.from_pixels(draw_phantom(seed, seed % 2 == 0, 90, 70)) for seed in range(COUNT)]
    passes = list(infer_in_batches(predictor.engine, prepare_ahead(predictor.prepare, radiographs), batch_size=4))
    assert [prepared.radiograph for prepared, _ in passes] == radiographs
    for prepared, output in passes:
        alone = predictor.engine.forward(prepared.pixels_1SS[np.newaxis])
        for name in ("logits_B", "embeddings_BD", "cams_Bhw", "attentions_B"):
            assert getattr(output, name).numpy() == pytest.approx(getattr(alone, name).numpy(), abs=1e-4)


class CountingEngine:
    """Says of each radiograph the value of its first pixel, and remembers the sizes of its batches."""

    name = "fake"
    device = torch.device("cpu")
    precision: Precision = "float32"

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def forward(self, pixels_B1SS: PixelArray) -> ModelOutput:
        self.sizes.append(len(pixels_B1SS))
        values = torch.from_numpy(pixels_B1SS[:, 0, 0, 0].astype(np.float32))
        return ModelOutput(values, values[:, None], values[:, None, None], values)

    def sizes_to_warm(self, largest: int) -> tuple[int, ...]:
        return ()


def test_each_input_gets_its_own_row() -> None:
    engine = CountingEngine()
    inputs = [Canvas(np.full((1, 2, 2), value, np.uint8)) for value in range(COUNT)]
    passes = list(infer_in_batches(engine, inputs, batch_size=4))
    assert engine.sizes == [4, 4, 3]
    assert [canvas for canvas, _ in passes] == inputs
    joined = concatenate([output for _, output in passes])
    for values in (joined.logits_B, joined.embeddings_BD, joined.cams_Bhw, joined.attentions_B):
        assert values.flatten().tolist() == list(range(COUNT))
    assert select_rows(joined, slice(3, 5)).logits_B.tolist() == [3, 4]
    assert list(infer_in_batches(engine, [])) == []


def test_results_keep_the_order_of_the_items_whichever_is_ready_first() -> None:
    def later_first(item: int) -> int:
        time.sleep(0.02 / (item + 1))
        return item

    assert list(prepare_ahead(later_first, range(20), ahead=5)) == list(range(20))


def test_items_are_prepared_while_the_result_before_is_used_and_never_too_many() -> None:
    begun: list[int] = []
    ready = threading.Event()

    def prepare(item: int) -> int:
        begun.append(item)
        if item == 3:
            ready.set()
        return item

    results = prepare_ahead(prepare, range(100), ahead=3)
    assert next(results) == 0
    assert ready.wait(5)
    assert set(begun) <= {0, 1, 2, 3}
    results.close()  # type: ignore[attr-defined]
    assert len(begun) == 4


def test_error_of_an_item_is_raised_in_its_place() -> None:
    results = prepare_ahead(lambda item: 1 // item, [1, 1, 0, 1])
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
