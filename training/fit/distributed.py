"""Sets up one training process, or several under `torchrun`, and the values that they exchange."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

from xray.engines.base import DeviceChoice
from xray.engines.registry import choose_device

COLLECTIVE_TIMEOUT = timedelta(hours=2)
"""Of a collective operation: the others wait while rank 0 decodes the whole dataset."""


@dataclass(frozen=True)
class Processes:
    """This process among the processes of a run.

    Attributes:
        rank: 0 to count - 1; rank 0 validates, prints and writes.
        device: what this process computes on.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def broadcast(self, values: list[float]) -> list[float]:
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
def init_distributed(choice: DeviceChoice) -> Iterator[Processes]:
    """Join the process group that `torchrun` started, or run as a single process.

    Raises:
        InputError: the device is not there.
    """
    device = choose_device(choice)
    if not distributed.is_torchelastic_launched():
        yield Processes(0, 1, device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", distributed.get_node_local_rank())
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=COLLECTIVE_TIMEOUT)
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size(), device)
        # DistributedDataParallel keeps gloo's threads alive. A thread that still holds a tensor when the interpreter
        # exits aborts the process, so that all processes wait here after the last broadcast.
        distributed.barrier()
    finally:
        distributed.destroy_process_group()
