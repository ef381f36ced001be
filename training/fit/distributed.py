"""Sets up one training process, or several under `torchrun`, and exchanges values between them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import distributed

from xray.engines.base import DeviceChoice
from xray.engines.registry import choose_device

COLLECTIVE_TIMEOUT = timedelta(hours=2)
"""Timeout of a collective operation: the other processes wait while rank 0 decodes the whole dataset."""


@dataclass(frozen=True)
class Processes:
    """This process as one of the distributed processes of a training run.

    Attributes:
        rank: 0 to count - 1; rank 0 validates, prints and writes.
        device: device on which this process computes.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process is rank 0 of the training run."""
        return self.rank == 0

    def broadcast(self, values: list[float]) -> list[float]:
        """Return rank 0's values on every rank of the training run."""
        if self.count == 1:
            return values
        shared = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, src=0)
        return [float(value) for value in shared]

    def mean(self, value: float) -> float:
        """Return the mean of a value over all ranks, on every rank; not finite if the value of any rank is not."""
        if self.count == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.all_reduce(total)
        return float(total) / self.count


@contextmanager
def init_distributed(choice: DeviceChoice) -> Iterator[Processes]:
    """Join the process group that `torchrun` started, or run as a single process.

    Raises:
        InputError: the device is missing.
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
