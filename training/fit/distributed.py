"""One process or several under `torchrun`, and the little that they tell each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

from xray.engines.base import DeviceChoice
from xray.engines.registry import choose_device

PATIENCE = timedelta(hours=2)
"""For which processes wait for one of them, which may be decoding a whole dataset."""


@dataclass(frozen=True)
class Processes:
    """This process among its equals.

    Attributes:
        rank: 0 to count - 1; rank 0 validates, prints and writes.
        device: what this process computes on.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, values: list[float]) -> list[float]:
        """Rank 0's values, on every rank."""
        if self.count == 1:
            return values
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, src=0)
        return [float(value) for value in shared]

    def mean(self, value: float) -> float:
        """The mean of a value over all ranks, on every rank; not finite if it is not on any of them."""
        if self.count == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return float(total) / self.count


@contextmanager
def joined(choice: DeviceChoice) -> Iterator[Processes]:
    """Join the group that `torchrun` started, or stand alone."""
    device = choose_device(choice)
    if not distributed.is_torchelastic_launched():
        yield Processes(0, 1, device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", distributed.get_node_local_rank())
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size(), device)
        # The data-parallel wrapper keeps gloo's threads alive to the very end, and one of them that still holds a
        # tensor when the interpreter goes aborts the process: so nobody goes right after the last `share`.
        distributed.barrier()
    finally:
        distributed.destroy_process_group()
