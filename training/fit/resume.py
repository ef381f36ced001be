"""Saves the state of a training run in one safetensors file, which is replaced atomically, and resumes from it."""

from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from training.fit.history import Progress
from training.fit.setup import Run
from xray.artifact import atomic_file
from xray.errors import ArtifactError, InputError

STATE = "state.safetensors"
"""Name of the file in OUT."""


def save_state(run: Run, progress: Progress) -> None:
    """Write OUT/state.safetensors to resume from: weights and their average, optimizer moments, progress and recipe."""
    model, optimizer = run.model, run.optimizer
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if run.ema:
        tensors |= {f"average.{name}": tensor for name, tensor in run.ema.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
    metadata = {"progress": _json(progress), "recipe": _json(run.recipe)}
    with atomic_file(run.options.out / STATE) as partial:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, metadata)


def load_state(run: Run) -> Progress:
    """Resume a run from OUT/state.safetensors, if there is one: load model and optimizer, and return the progress.

    Raises:
        InputError: the run in OUT has other options or other data.
        ArtifactError: the file is damaged.
    """
    file, model, optimizer = run.options.out / STATE, run.model, run.optimizer
    if not file.exists():
        return Progress()
    try:
        with safe_open(file, framework="pt") as stored:
            metadata = stored.metadata() or {}
            _require_same_recipe(run, msgspec.json.decode(metadata["recipe"], type=dict[str, Any]))
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118, no mapping
    except (SafetensorError, KeyError, msgspec.MsgspecError) as error:
        raise ArtifactError(f"{file} is damaged ({error}); remove it to start the run over.") from error
    model.load_state_dict(_select_prefix("model.", tensors))
    if run.ema:
        run.ema.load_state_dict(_select_prefix("average.", tensors))
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, moment = name.split(".")
            moments.setdefault(int(index), {})[moment] = tensor
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return msgspec.json.decode(metadata["progress"], type=Progress)


def _select_prefix(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin with a prefix, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _require_same_recipe(run: Run, started_with: dict[str, Any]) -> None:
    now: dict[str, Any] = msgspec.json.decode(_json(run.recipe))
    changed = [
        f"{name} was {started_with.get(name)!r}, is {now.get(name)!r}"
        for name in sorted(now.keys() | started_with.keys())
        if now.get(name) != started_with.get(name)
    ]
    if changed:
        raise InputError(f"{run.options.out} holds another run ({'; '.join(changed)}); choose another --out.")


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
