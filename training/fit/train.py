"""Trains a network and writes the best and the last checkpoint; `train` is the table of contents."""

import math
import time
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from training.dataset.loader import Bags
from training.dataset.sampling import SampledStudy, plan_epoch
from training.evaluate.metrics import auroc
from training.export.calibrate import CalibrateOptions, fit_manifest, youden_threshold
from training.export.check_engine import check_export
from training.export.fit_scope import MIN_RADIOGRAPHS, embed_records, fit_space
from training.fit.distributed import init_distributed
from training.fit.history import EpochResult, Progress, draw_history
from training.fit.loss import study_logits, total_loss
from training.fit.resume import load_state, save_state
from training.fit.schedule import learning_rate
from training.fit.setup import Run, set_up, wrap_parallel
from training.options import TrainOptions
from xray.artifact import atomic_file, write_manifest
from xray.engines.registry import load_engine
from xray.errors import InputError
from xray.mura.studies import dataset_name, records_of
from xray.network.checkpoint import (
    Checkpoint,
    CheckpointManifest,
    TrainingData,
    load_checkpoint,
    read_checkpoint_manifest,
    save_checkpoint,
    save_scope,
)


def train(options: TrainOptions) -> None:
    """Train a network, or continue a run that was killed; write OUT/best, OUT/last, OUT/history.json and its plot.

    Raises:
        DatasetError: a split is empty, has one class only, or an image cannot be read.
        InputError: OUT has another run, or the loss is no longer finite.
        ArtifactError: the weights to start from cannot be loaded, or the CPU's engine is not fit to serve OUT/best,
            which is kept.
    """
    with init_distributed(options.device) as processes:
        run = set_up(options, processes)
        progress = load_state(run)
        network = wrap_parallel(run)
        if processes.is_main and (progress.epoch or progress.step):
            print(f"continuing after epoch {progress.epoch} and {progress.step} steps")
        while progress.epoch < options.epochs:
            progress = train_one_epoch(run, network, progress)
            progress = progress.after_epoch(validate_epoch(run, progress))
            if processes.is_main:
                write_epoch(run, progress)
    if processes.is_main:
        print(f"best of {options.epochs} epochs: validation AUROC {progress.best.validation_auroc:.3f}")
        print(f"checkpoint: {options.out / 'best'}")
        finish_run(run)


def finish_run(run: Run) -> None:
    """Calibrate the best checkpoint, fit what is familiar to it, and check that the CPU's engine can serve it.

    Raises:
        ArtifactError: the engine differs too much from the network.
    """
    best = run.options.out / "best"
    if read_checkpoint_manifest(best).uncertainty is None:
        write_manifest(best, fit_manifest(CalibrateOptions(best, run.options.data), run.validation))
    if read_checkpoint_manifest(best).familiarity_limit is None:
        finish_scope(run, best)
    check_export(best, run.validation)


def finish_scope(run: Run, best: Path) -> None:
    """Fit the space of the training data's embeddings, unless there are too few radiographs.

    The limb classifier needs other images too, so `training fit-scope` adds it.
    """
    records = records_of(run.training)
    if len(records) < MIN_RADIOGRAPHS:
        print(f"{len(records)} radiographs are too few to fit a limit of familiarity; {best} has none.")
        return
    checkpoint = load_checkpoint(best)
    embeddings_ND = embed_records(checkpoint, load_engine(checkpoint, "auto", "auto"), records)
    save_scope(best, fit_space(embeddings_ND, [record.study_key for record in records]))


def train_one_epoch(run: Run, network: nn.Module, progress: Progress) -> Progress:
    """Train for the remaining steps of the epoch, and save the run's state every few minutes."""
    options, processes = run.options, run.processes
    plan = plan_epoch(run.training, options, progress.epoch, processes.count)
    own = [batch[processes.rank :: processes.count] for batch in plan[progress.step :]]
    network.train()
    saved = time.monotonic()
    with tqdm(total=len(plan), initial=progress.step, disable=not processes.is_main, unit="step") as bar:
        bar.set_description(f"epoch {progress.epoch + 1}/{options.epochs}")
        for batch in run.training_loader.batches(own):
            rate = _set_rate(run, progress, len(plan))
            progress = progress.after_step(train_one_step(run, network, batch, progress))
            bar.update()
            bar.set_postfix(loss=f"{progress.loss_sum / progress.step:.4f}", rate=f"{rate:.1e}")
            if processes.is_main and time.monotonic() - saved > 60 * options.save_minutes:
                save_state(run, progress)
                saved = time.monotonic()
    return progress


def train_one_step(run: Run, network: nn.Module, bags: Bags, progress: Progress) -> float:
    """Train on one batch: forward pass, backward pass and update; return its loss, averaged over all processes.

    Raises:
        InputError: the loss or the gradient is not finite. All processes raise it, and the weights do not change.
    """
    bags = bags.to(run.processes.device)
    with _autocast(run):
        output = network(bags.pixels_N1SS)
    loss = total_loss(output, bags, run.options)
    mean_loss = _require_finite(run.processes.mean(float(loss.detach())), "loss", progress)
    run.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    # The gradient is the mean over all processes, so all of them see the same value.
    _require_finite(float(gradient_norm(run.model)), "gradient", progress)
    run.optimizer.step()
    if run.ema:
        run.ema.update_parameters(run.model)
    return mean_loss


def gradient_norm(model: nn.Module) -> torch.Tensor:
    """Return the length of a training step's gradient over all parameters that have one; a scalar."""
    return torch.nn.utils.get_total_norm([each.grad for each in model.parameters() if each.grad is not None])


def validate_epoch(run: Run, progress: Progress) -> EpochResult:
    """Validate after an epoch of `train`: rank 0 measures the network, and every rank gets the result.

    Raises:
        InputError: the validation loss is not finite; all processes raise it.
    """
    values = validate(run) if run.processes.is_main else [0.0, 0.0, 0.0]
    loss, area, threshold = run.processes.broadcast(values)
    _require_finite(loss, "validation loss", progress)
    rate = float(run.optimizer.param_groups[0]["lr"])
    return EpochResult(progress.epoch, rate, progress.loss_sum / progress.step, loss, area, threshold)


@torch.inference_mode()
def validate(run: Run) -> list[float]:
    """Compute loss, AUROC and Youden's threshold on a run's validation studies; NaN if a probability is not finite."""
    size = run.options.batch_studies
    samples = [SampledStudy(0, place, place) for place in range(len(run.validation))]
    batches = [samples[start : start + size] for start in range(0, len(samples), size)]
    run.eval_model.eval()
    total = 0.0
    probabilities: list[float] = []
    loaded = run.validation_loader.batches(batches)
    for batch in tqdm(loaded, total=len(batches), desc="validation", unit="batch", leave=False):
        batch = batch.to(run.processes.device)
        with _autocast(run):
            output = run.eval_model(batch.pixels_N1SS)
        total += float(total_loss(output, batch, run.options)) * len(batch.views)
        probabilities += study_logits(output, batch.views, run.options.study_pooling).sigmoid().tolist()
    if not np.isfinite(probabilities).all():
        return [math.nan] * 3
    targets = [study.target for study in run.validation]
    threshold = youden_threshold(np.array(targets), np.array(probabilities))
    return [total / len(targets), auroc(targets, probabilities), threshold]


def write_epoch(run: Run, progress: Progress) -> None:
    """End an epoch of `train`: write its checkpoints, history and plot, then the state.

    A run that is killed in between repeats this.
    """
    options = run.options
    result = progress.history[-1]
    records = records_of(run.training)
    manifest = CheckpointManifest(
        architecture=options.architecture,
        preprocess=options.preprocess,
        map_spec=options.map_spec,
        study_pooling=options.study_pooling,
        training_data=TrainingData(
            dataset_name(options.data), len(run.training), len(records), run.fingerprint_of(run.training)
        ),
        metrics={"epoch": result.epoch + 1, "valid_study_auroc": result.validation_auroc},
        thresholds={"default": result.threshold},
    )
    names = ["last", "best"] if progress.best == result else ["last"]
    for name in names:
        save_checkpoint(options.out / name, Checkpoint(run.eval_model, manifest), options.storage)
    with atomic_file(options.out / "history.json") as partial:
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(progress.history)))
    with atomic_file(options.out / "history.png") as partial:
        draw_history(progress.history, partial)
    save_state(run, progress)
    print(
        f"epoch {result.epoch + 1}: training loss {result.training_loss:.4f}, "
        f"validation loss {result.validation_loss:.4f}, validation AUROC {result.validation_auroc:.3f}"
    )


def _autocast(run: Run) -> torch.autocast:
    device = run.processes.device.type
    chosen = run.options.precision
    in_bfloat16 = multiplies_in_bfloat16(device) if chosen == "auto" else chosen == "bfloat16"
    return torch.autocast(device, torch.bfloat16, enabled=in_bfloat16)


def multiplies_in_bfloat16(device: str) -> bool:
    """Return whether `train` takes bfloat16 by default: whether a `cuda` or `cpu` device multiplies in it natively."""
    capabilities = torch.cpu.get_capabilities()
    return device == "cuda" or any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))


def _require_finite(value: float, name: str, progress: Progress) -> float:
    if math.isfinite(value):
        return value
    raise InputError(
        f"The {name} became {value} in epoch {progress.epoch + 1}, step {progress.step + 1}; give a lower "
        "--learning-rate or --precision float32, and another --out."
    )


def _set_rate(run: Run, progress: Progress, steps: int) -> float:
    done = (progress.epoch + progress.step / steps) / run.options.epochs
    rate = learning_rate(run.options, done, progress.validation_losses)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    return rate
