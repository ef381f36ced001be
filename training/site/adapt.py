"""Adapts a checkpoint to a site: fits its decisions and limits to the site's studies, and perhaps its weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from training.dataset.radiographs import read_radiographs
from training.export.calibrate import ERROR_RATE
from training.fit.train import train
from training.options import TrainOptions
from training.site.fit_site import FitOptions, fit_to_site
from training.site.site_data import SiteImages, describe_data, image_digests, require_enough
from xray.artifact import require_replaceable
from xray.engines.base import DeviceChoice, PrecisionChoice
from xray.errors import InputError
from xray.mura.overlap import require_disjoint
from xray.mura.studies import Study, read_mura, records_of
from xray.network.checkpoint import (
    Checkpoint,
    CheckpointManifest,
    load_checkpoint,
    read_checkpoint_manifest,
    save_checkpoint,
    save_with_weights_of,
)


@dataclass(frozen=True)
class AdaptOptions:
    """Fit decisions and limits to DATA/SPLIT, a site's own labeled studies, and write a new checkpoint."""

    checkpoint: Path
    """Checkpoint folder, which stays as it is."""
    data: Path
    """Folder of the site's studies in MURA layout."""
    out: Path
    """Checkpoint folder to write."""
    split: str = "valid"
    """Studies to adapt to. Measure the result on studies of other patients."""
    fine_tune: Literal["none", "head", "network"] = "none"
    """Weights to fit: `none`, the classifier only, or all of them, on DATA/train, with DATA/valid for the rest."""
    epochs: int = 5
    """Epochs of `--fine-tune network`."""
    learning_rate: float = 1e-5
    """Largest learning rate of `--fine-tune network`, a tenth of that of a training run."""
    error_rate: float = ERROR_RATE
    """Maximum share of wrong decisions in either class; if there would be more, the decision is `uncertain`."""
    device: DeviceChoice = "auto"
    precision: PrecisionChoice = "auto"
    """Precision of the network on a CPU; `auto` is the one that the service uses on this machine."""
    allow_overlap: bool = False
    """Allow patients of the split in another split of the site's folder."""

    def __post_init__(self) -> None:
        if not 0 < self.error_rate < 0.5:
            raise InputError(f"--error-rate is {self.error_rate}; give a share above 0 and below 0.5.")
        if self.fine_tune == "network" and self.split != "valid":
            raise InputError("--fine-tune network trains on train and calibrates on valid; leave --split out.")
        if self.out.resolve().is_relative_to(self.checkpoint.resolve()):
            raise InputError("--out is the folder of --checkpoint or lies in it; choose another folder.")


def adapt(options: AdaptOptions) -> CheckpointManifest:
    """Adapt a checkpoint to a site: fit weights, scope and decisions, write the folder OUT, and print what has changed.

    Raises:
        ArtifactError: the checkpoint is damaged, or the CPU's engine is not fit to serve the fine-tuned network.
        DatasetError: images cannot be read, patients are also in another split, there are too few studies of a class,
            or the checkpoint ranks them no better than chance.
        InputError: OUT exists and is no artifact.
        NoSpaceError: the disk of OUT is full.
    """
    require_replaceable(options.out)
    studies = read_mura(options.data, options.split)
    require_disjoint(options.data, options.split, studies, options.allow_overlap)
    require_enough(studies)
    used, folder = list(studies), options.checkpoint
    if options.fine_tune == "network":
        used += read_mura(options.data, "train")
        folder = fine_tune_network(options)
    site = SiteImages(studies, read_radiographs(records_of(studies)))
    fit = fit_to_site(
        folder, site, FitOptions(options.fine_tune == "head", options.error_rate, options.device, options.precision)
    )
    checkpoint = with_origin(fit.checkpoint, options, used)
    if fit.has_new_weights:
        manifest = save_checkpoint(options.out, checkpoint)
    else:
        manifest = save_with_weights_of(folder, options.out, checkpoint)
    _print_changes(options, manifest, fit.remarks)
    return manifest


def fine_tune_network(options: AdaptOptions) -> Path:
    """Train the checkpoint's network on the site's train split, from its weights; return the best checkpoint's folder.

    If the run was killed, it continues.
    """
    manifest = read_checkpoint_manifest(options.checkpoint)
    run = options.out.with_name(f"{options.out.name}-run")
    train(
        TrainOptions(
            data=options.data,
            out=run,
            weights=str(options.checkpoint),
            architecture=manifest.architecture,
            size=manifest.preprocess.size,
            framing=manifest.preprocess.framing,
            map_stride=manifest.map_spec.stride,
            map_pooling=manifest.map_spec.pooling,
            study_pooling=manifest.study_pooling,
            epochs=options.epochs,
            learning_rate=options.learning_rate,
            schedule="one-cycle",
            device=options.device,
            allow_overlap=options.allow_overlap,
        )
    )
    return run / "best"


def with_origin(checkpoint: Checkpoint, options: AdaptOptions, used: Sequence[Study]) -> Checkpoint:
    """Return an adapted checkpoint that names the data of its training, and the site's studies and images."""
    original, digests = load_checkpoint(options.checkpoint), image_digests(records_of(used))
    manifest = replace(
        checkpoint.manifest,
        training_data=original.manifest.training_data,
        adapted_on=describe_data(options.data, used, digests),
    )
    images = original.adapted_images | frozenset(digests.values())
    return replace(checkpoint, manifest=manifest, adapted_images=images)


def _print_changes(options: AdaptOptions, manifest: CheckpointManifest, remarks: Sequence[str]) -> None:
    """Print what was fitted to the site, and what has to be done next."""
    before, site = read_checkpoint_manifest(options.checkpoint), manifest.adapted_on
    assert site is not None, "an adapted checkpoint names its data"
    print(f"checkpoint {manifest.id}, adapted to {site.studies} studies of {site.name}: {options.out}")
    print("\n".join(remarks))
    if manifest.id == before.id:
        print(f"weights: unchanged, so galleries of checkpoint {before.id} stay valid")
    else:
        print(
            f"weights: changed, and so is the ID, which was {before.id}: build the gallery again with this checkpoint"
        )
    if before.scope_limit is not None and manifest.scope_limit is None:
        print("scope: the limb classifier was of the old network; add one with `training fit-scope --others`")
    print("next: `python -m training validate-site` on studies of other patients; on these, it refuses")
