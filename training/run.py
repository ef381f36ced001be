"""Options in, everything a training run works with out: its studies, its network, its optimizer, its equals."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from training.data import require_readable
from training.distributed import Processes
from training.options import TrainOptions
from xray.checkpoint import load_checkpoint
from xray.errors import ArtifactError, DatasetError, InputError
from xray.model import XrayDenseNet, load_imagenet_weights
from xray.mura import Study, fingerprint, read_mura, records_of

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@dataclass(frozen=True)
class Run:
    """Everything a run works with, wired in `start`."""

    options: TrainOptions
    processes: Processes
    training: list[Study]
    validation: list[Study]
    model: XrayDenseNet
    optimizer: torch.optim.Optimizer

    @property
    def recipe(self) -> dict[str, object]:
        """All that decides the result: options, data and number of processes; compared when the run is resumed."""
        data = {
            "training data": fingerprint(records_of(self.training)),
            "validation data": fingerprint(records_of(self.validation)),
        }
        return self.options.recipe | data | {"processes": self.processes.count}


def start(options: TrainOptions, processes: Processes) -> Run:
    """Read the dataset, check every image and build the network."""
    training, validation = (_split(options.data, name) for name in ("train", "valid"))
    if processes.leads:
        options.out.mkdir(parents=True, exist_ok=True)
        require_readable(records_of([*training, *validation]))
    model = initial_model(options).to(processes.device).to(memory_format=torch.channels_last)
    optimizer = OPTIMIZERS[options.optimizer](
        model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    return Run(options, processes, training, validation, model, optimizer)


def initial_model(options: TrainOptions) -> XrayDenseNet:
    """A network as `--weights` asks for it."""
    torch.manual_seed(options.seed)
    model = XrayDenseNet(options.architecture, options.preprocess, options.map_stride)
    if options.weights == "imagenet":
        load_imagenet_weights(model, options.architecture)
    elif options.weights != "none":
        if not Path(options.weights).is_dir():
            raise InputError(f"--weights is {options.weights!r}; give imagenet, none or a checkpoint folder.")
        given = load_checkpoint(Path(options.weights))
        if given.manifest.architecture != options.architecture:
            raise ArtifactError(f"{options.weights} is a {given.manifest.architecture}, not a {options.architecture}.")
        model.load_state_dict(given.model.state_dict())
    return model


def parallel(run: Run) -> nn.Module:
    """The model itself, or its data-parallel wrapper under `torchrun`."""
    return run.model if run.processes.count == 1 else DistributedDataParallel(run.model)


def _split(data: Path, name: str) -> list[Study]:
    studies = read_mura(data, name)
    if len({study.target for study in studies}) < 2:
        raise DatasetError(f"{data / name} holds studies of one class only; both are needed.")
    return studies
