"""Measures a checkpoint on a split; writes metrics with intervals, tables and an HTML page.

The probabilities are the same as the service's, because they come from the same `Predictor`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import tyro
from tqdm import tqdm

from training.dataset.annotations import Annotation, read_annotations, warn_unused
from training.dataset.radiographs import read_radiographs
from training.evaluate.evaluation import Evaluation, Row, page_of, print_evaluation, write_tables
from training.evaluate.html_page import write_page
from training.evaluate.metrics import RESAMPLES, Sample, auroc, calibration_of, figures_with_intervals
from training.evaluate.ood import measure_ood
from training.evaluate.pointing_game import measure_pointing
from training.evaluate.predictions import average_ensemble, predict_all, sample_of
from training.evaluate.retrieval_metrics import measure_retrieval
from training.evaluate.worst_cases import Mistake, worst_mistakes
from xray.artifact import staged_files
from xray.engines.base import DeviceChoice, PrecisionChoice
from xray.engines.registry import load_engine
from xray.errors import DatasetError, InputError
from xray.gallery.gallery import Gallery
from xray.gallery.storage import load_gallery
from xray.mura.files import find_images, listing
from xray.mura.overlap import require_disjoint
from xray.mura.studies import Study, dataset_name, read_split, records_of
from xray.network.checkpoint import Checkpoint, load_checkpoint
from xray.predictor import Predictor, StudyPrediction

OVERALL = "all"
"""Name of the group of all studies."""
HARDWARE_FREE = "hardware-free"
"""Name of the group of studies without visible metal, because a network could use metal as a shortcut."""


@dataclass(frozen=True)
class EvaluateOptions:
    """Evaluate a checkpoint on the studies of DATA/SPLIT."""

    checkpoint: Path
    """Checkpoint folder."""
    data: Path
    """Dataset folder in MURA layout."""
    ensemble_with: Annotated[tuple[Path, ...], tyro.conf.arg(aliases=["--also"])] = ()
    """More checkpoints, whose probabilities are averaged with the first's; maps and neighbors are the first's."""
    split: str = "valid"
    out: Path = Path("artifacts/evaluation")
    """Folder for index.html, metrics.json, studies.csv and radiographs.csv."""
    gallery: Path | None = None
    """Gallery folder of that checkpoint, to measure its neighbors."""
    ood: Annotated[Path | None, tyro.conf.arg(aliases=["--strangers"])] = None
    """Folder of images that are not radiographs of limbs, to measure how many are out of the checkpoint's scope."""
    device: DeviceChoice = "auto"
    precision: PrecisionChoice = "auto"
    """Precision of the network on a CPU; `auto` is the one that the service uses on this machine."""
    resamples: int = RESAMPLES
    """Number of bootstrap resamples for each interval."""
    allow_overlap: bool = False
    """Allow patients of the split in another split of the dataset, or in the gallery of one."""

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise InputError(f"--resamples is {self.resamples}; give at least 1.")


def evaluate(options: EvaluateOptions) -> Evaluation:
    """Evaluate a checkpoint: predict every study, measure, write the folder OUT and print the table.

    Raises:
        ArtifactError: a checkpoint or the gallery is damaged, or they do not belong together.
        DatasetError: the split is empty, images cannot be read, or patients are also in another split or in the
            gallery; the message counts and names them.
        NoSpaceError: the disk of OUT is full; the old report is kept.
    """
    split = read_split(options.data, options.split)
    studies = split.studies
    overlap = require_disjoint(options.data, options.split, studies, options.allow_overlap)
    radiographs = read_radiographs(records_of(studies))
    options.out.mkdir(parents=True, exist_ok=True)  # before the predictions, so that a failure shows at once
    if options.ood:
        find_images(options.ood)  # the folder is measured last, but its errors are raised now
    checkpoints = [load_checkpoint(folder) for folder in (options.checkpoint, *options.ensemble_with)]
    gallery = load_evaluation_gallery(options, checkpoints[0], studies)
    predictors = [load_predictor(each, options, gallery) for each in checkpoints]
    if options.ood and predictors[0].space is None:
        print(f"{options.checkpoint} has no scope limit, so --ood measures color and gray levels only.")
    predictions = average_ensemble([predict_all(each, studies, radiographs) for each in predictors])
    annotations = read_annotations(options.data)
    warn_unused(annotations, options.split, studies)
    evaluation = Evaluation(
        checkpoints[0].manifest,
        dataset_name(options.data),
        options.split,
        dict(split.left_out),
        overlap,
        measure_groups(studies, predictions, annotations, options.resamples),
        calibration_of(sample_of(studies, predictions), options.resamples),
        measure_pointing(studies, predictions, annotations, options.resamples),
        measure_retrieval(studies, predictions, gallery, options.resamples) if gallery else None,
        measure_ood(predictions, predictors[0], options.ood) if options.ood else None,
    )
    mistakes = worst_mistakes(studies, predictions, annotations)
    write_report(options.out, evaluation, studies, predictions, mistakes)
    print_evaluation(evaluation)
    return evaluation


def write_report(
    folder: Path,
    evaluation: Evaluation,
    studies: Sequence[Study],
    predictions: Sequence[StudyPrediction],
    mistakes: Sequence[Mistake],
) -> None:
    """Write the report of `evaluate`: page, metrics and tables; either all of them are replaced or none."""
    with staged_files(folder) as partial:
        write_tables(partial, studies, predictions)
        (partial / "metrics.json").write_bytes(msgspec.json.format(msgspec.json.encode(evaluation)))
        write_page(partial / "index.html", page_of(evaluation, sample_of(studies, predictions), mistakes))


def load_evaluation_gallery(
    options: EvaluateOptions, checkpoint: Checkpoint, studies: Sequence[Study]
) -> Gallery | None:
    """Load the gallery of an evaluation, if one is given.

    Raises:
        ArtifactError: the gallery is damaged or of another checkpoint.
        DatasetError: the gallery has patients of these studies; the message counts and names them.
    """
    if options.gallery is None:
        return None
    gallery = load_gallery(options.gallery, checkpoint.manifest.id)
    dataset = studies[0].records[0].path.split("/", 1)[0]
    if gallery.manifest.dataset != dataset or gallery.manifest.split == options.split:
        return gallery
    shared = sorted({entry.patient for entry in gallery.entries} & {study.patient for study in studies})
    if shared and not options.allow_overlap:
        raise DatasetError(
            listing(shared, f"patients of {options.split} are in the gallery too")
            + ". Build it without them, or give --allow-overlap."
        )
    return gallery


def load_predictor(checkpoint: Checkpoint, options: EvaluateOptions, gallery: Gallery | None) -> Predictor:
    """Load a checkpoint's predictor for `evaluate`, with an engine for the device and precision of its options."""
    return Predictor.from_artifacts(checkpoint, load_engine(checkpoint, options.device, options.precision), gallery)


def studies_with_hardware(annotations: Mapping[str, Annotation]) -> set[str] | None:
    """Return the folders of studies with metal, left out of one group of `evaluate`; None if metal is never noted."""
    noted = {path: annotation.hardware for path, annotation in annotations.items() if annotation.hardware is not None}
    return {path.rsplit("/", 1)[0] for path, hardware in noted.items() if hardware} if noted else None


def group_studies(studies: Sequence[Study], with_hardware: set[str] | None) -> dict[str, np.ndarray]:
    """Return a mask of the studies of each group to evaluate, by the group's name."""
    parts = [study.body_part for study in studies]
    groups = {OVERALL: np.ones(len(studies), bool)}
    groups |= {part: np.array(parts) == part for part in sorted(set(parts))}
    if with_hardware is not None:
        free = [study.records[0].path.rsplit("/", 1)[0] not in with_hardware for study in studies]
        groups[HARDWARE_FREE] = np.array(free)
    return groups


def baseline_probabilities(studies: Sequence[Study]) -> np.ndarray:
    """Return an evaluation's baseline: for each study, the share of abnormal studies of its body part."""
    targets: dict[str, list[int]] = {}
    for study in studies:
        targets.setdefault(study.body_part, []).append(study.target)
    return np.array([np.mean(targets[study.body_part]) for study in studies])


def measure_groups(
    studies: Sequence[Study],
    predictions: Sequence[StudyPrediction],
    annotations: Mapping[str, Annotation],
    resamples: int,
) -> tuple[Row, ...]:
    """Evaluate the checkpoint on each group of studies; the first group is all studies."""
    sample = sample_of(studies, predictions)
    threshold = predictions[0].threshold
    baselines = baseline_probabilities(studies)
    groups = group_studies(studies, studies_with_hardware(annotations))
    return tuple(
        measure_group(name, sample.rows(chosen), baselines[chosen], threshold, resamples)
        for name, chosen in tqdm(groups.items(), desc="resampling", unit="group")
    )


def measure_group(group: str, sample: Sample, baselines: np.ndarray, threshold: float, resamples: int) -> Row:
    """Evaluate the checkpoint on one group of studies: its metrics, and the AUROC of `baseline_probabilities`."""
    figures = figures_with_intervals(sample, threshold, resamples)
    return Row(group, len(sample.targets), int(sample.targets.sum()), figures, auroc(sample.targets, baselines))
