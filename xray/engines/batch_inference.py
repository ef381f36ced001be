"""Runs an engine over many radiographs: threads decode the next ones while the network works on a batch.

Every command that sends a dataset through the network uses this loop.

Legend: B batch, N inputs, S canvas side.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
import torch

from xray.engines.base import Engine
from xray.images.radiograph import PixelArray
from xray.network.model import ModelOutput

BATCH_SIZE = 16
"""Radiographs per forward pass: enough to fill a GPU at 320 px, and few enough for a CPU host with little memory."""
MAX_AHEAD = 2 * BATCH_SIZE
"""Items that are prepared before they are needed: the next batch, and as many again so that no thread waits. Each may
hold a radiograph in full size."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class NetworkInput(Protocol):
    """Anything that can go into a batch: an object that carries the network's input for one radiograph."""

    @property
    def pixels_1SS(self) -> PixelArray:
        """One radiograph's part of a batch: uint8 (1, S, S), from `preprocess`."""


Input = TypeVar("Input", bound=NetworkInput)


@dataclass(frozen=True)
class Canvas:
    """One radiograph's input to a batch, without anything else.

    Attributes:
        pixels_1SS: uint8.
    """

    pixels_1SS: PixelArray


def prepare_ahead(prepare: Callable[[Item], Result], items: Iterable[Item], ahead: int = MAX_AHEAD) -> Iterator[Result]:
    """Prepare items, such as the radiographs for batch inference, in threads, ahead of their use; yield them in order.

    At most `ahead` results are in memory at a time, so that datasets may have any size. An exception of `prepare`
    is raised in place of its result.
    """
    remaining = iter(items)
    pool = ThreadPoolExecutor()
    try:
        pending = deque(pool.submit(prepare, item) for item in islice(remaining, ahead))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(prepare, item) for item in islice(remaining, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def infer_in_batches(
    engine: Engine, inputs: Iterable[Input], batch_size: int = BATCH_SIZE
) -> Iterator[tuple[Input, ModelOutput]]:
    """Run the engine on batches of the inputs; yield each input with its own output, as a batch of one, in order.

    The engine runs in the calling thread. An output differs only by rounding from that of a batch of one. It is a view
    of its batch; copy it to keep it without the batch.
    """
    remaining = iter(inputs)
    while batch := list(islice(remaining, batch_size)):
        output = engine.forward(np.stack([each.pixels_1SS for each in batch]))
        for row, each in enumerate(batch):
            yield each, select_rows(output, slice(row, row + 1))


def select_rows(output: ModelOutput, rows: slice) -> ModelOutput:
    """Return the outputs of some radiographs of an inferred batch, as views."""
    return ModelOutput(
        output.logits_B[rows], output.embeddings_BD[rows], output.cams_Bhw[rows], output.attentions_B[rows]
    )


def concatenate(outputs: Sequence[ModelOutput]) -> ModelOutput:
    """Join the outputs of several inferred batches to one, in order."""
    return ModelOutput(
        torch.cat([each.logits_B for each in outputs]),
        torch.cat([each.embeddings_BD for each in outputs]),
        torch.cat([each.cams_Bhw for each in outputs]),
        torch.cat([each.attentions_B for each in outputs]),
    )
