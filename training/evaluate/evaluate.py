"""Measures a checkpoint on a split; writes metrics with intervals, tables and an HTML page.

The probabilities are the same as the service's, because they come from the same `Predictor`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import tyro

from training.dataset.annotations import Annotation, read_annotations, warn_unused
from training.dataset.radiographs import read_radiographs
from training.evaluate.evaluation import Evaluation, page_of, print_evaluation, write_tables
from training.evaluate.floors import measure_floors, read_training_studies
from training.evaluate.groups import measure_groups
from training.evaluate.metrics import RESAMPLES, calibration_of
from training.evaluate.ood import measure_ood
from training.evaluate.outside import measure_outside, read_outside
from training.evaluate.page.html_page import write_page
from training.evaluate.page.worst_cases import Mistake, worst_mistakes
from training.evaluate.pairs import measure_pairs, require_boxes
from training.evaluate.pointing_game import measure_pointing
from training.evaluate.predictions import predict_ensemble, sample_of
from training.evaluate.retrieval_metrics import measure_retrieval
from xray.artifact import staged_files
from xray.engines.base import DeviceChoice, PrecisionChoice
from xray.engines.registry import load_engine
from xray.errors import DatasetError, InputError
from xray.gallery.gallery import Gallery
from xray.gallery.storage import load_gallery
from xray.images.radiograph import Radiograph
from xray.mura.files import find_images, listing
from xray.mura.overlap import require_disjoint
from xray.mura.studies import Split, Study, dataset_name, read_split, records_of
from xray.network.checkpoint import Checkpoint, load_checkpoint
from xray.predictor import Predictor, StudyPrediction


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
    """Folder for index.html, metrics.json, studies.csv, radiographs.csv and outside.csv."""
    gallery: Path | None = None
    """Gallery folder of that checkpoint, to measure its neighbors."""
    ood: Annotated[Path | None, tyro.conf.arg(aliases=["--strangers"])] = None
    """Folder of images that are not radiographs of limbs, to measure how many are out of the checkpoint's scope."""
    floors: bool = False
    """Measure what the AUROC is without looking for findings, by guesses that are fitted on DATA/train."""
    outside: tuple[Path, ...] = ()
    """Dataset folders of other sources, in MURA layout, whose split `valid` is measured and listed by study."""
    pairs: bool = False
    """Measure whether the logit follows a finding that is erased or pasted in; needs boxes in annotations.csv."""
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


@dataclass(frozen=True)
class EvaluationInputs:
    """Everything that an evaluation reads from datasets before it predicts, so that errors are raised at once.

    Attributes:
        overlap: number of the split's patients that are also in another split, by that split's name.
        radiographs: the radiographs of the split, in the order of the records.
        training: studies that the floors are fitted on; empty without `--floors`.
        outside: the outside sets.
    """

    split: Split
    overlap: dict[str, int]
    annotations: Mapping[str, Annotation]
    radiographs: list[Radiograph]
    training: list[Study]
    outside: list[Split]


def evaluate(options: EvaluateOptions) -> Evaluation:
    """Evaluate a checkpoint: predict every study, measure, write the folder OUT and print the tables.

    Raises:
        ArtifactError: a checkpoint or the gallery is damaged, or they do not belong together.
        DatasetError: the split is empty, images cannot be read, patients are also in another split or in the gallery,
            which the message counts and names, or the dataset lacks what `--floors` or `--pairs` need.
        NoSpaceError: the disk of OUT is full; the old report is kept.
    """
    inputs = read_inputs(options)
    studies = inputs.split.studies
    options.out.mkdir(parents=True, exist_ok=True)  # before the predictions, so that a failure shows at once
    checkpoints = [load_checkpoint(folder) for folder in (options.checkpoint, *options.ensemble_with)]
    gallery = load_evaluation_gallery(options, checkpoints[0], studies)
    predictors = [load_predictor(each, options, gallery) for each in checkpoints]
    if (options.ood or options.outside) and predictors[0].limb_classifier is None:
        print(f"{options.checkpoint} has no limb classifier, so its scope is measured by color and gray levels only.")
    predictions = predict_ensemble(predictors, studies, inputs.radiographs)
    evaluation = measure(options, inputs, predictors, gallery, predictions)
    mistakes = worst_mistakes(studies, predictions, inputs.annotations)
    write_report(options.out, evaluation, studies, predictions, mistakes)
    print_evaluation(evaluation)
    return evaluation


def read_inputs(options: EvaluateOptions) -> EvaluationInputs:
    """Read the datasets of an evaluation, and check that they have what the options need.

    Raises:
        DatasetError: see `evaluate`.
    """
    split = read_split(options.data, options.split)
    overlap = require_disjoint(options.data, options.split, split.studies, options.allow_overlap)
    annotations = read_annotations(options.data)
    warn_unused(annotations, options.split, split.studies)
    if options.pairs:
        require_boxes(split.studies, annotations)
    training = read_training_studies(options.data, options.split) if options.floors else []
    outside = read_outside(options.outside)
    if options.ood:
        find_images(options.ood)  # the folder is measured last, but its errors are raised now
    radiographs = read_radiographs(records_of(split.studies))
    return EvaluationInputs(split, overlap, annotations, radiographs, training, outside)


def measure(
    options: EvaluateOptions,
    inputs: EvaluationInputs,
    predictors: Sequence[Predictor],
    gallery: Gallery | None,
    predictions: Sequence[StudyPrediction],
) -> Evaluation:
    """Measure everything that an evaluation reports.

    Args:
        predictors: the members of the ensemble; maps, neighbors, scope and pairs are the first's.
        predictions: of the ensemble, for the studies of the split.
    """
    studies, annotations, resamples = inputs.split.studies, inputs.annotations, options.resamples
    sample, first = sample_of(studies, predictions), predictors[0]
    return Evaluation(
        checkpoint=first.manifest,
        dataset=dataset_name(options.data),
        split=options.split,
        left_out=dict(inputs.split.left_out),
        overlap=inputs.overlap,
        rows=measure_groups(studies, predictions, annotations, resamples),
        calibration=calibration_of(sample, resamples),
        pointing=measure_pointing(studies, predictions, annotations, resamples),
        retrieval=measure_retrieval(studies, predictions, gallery, resamples) if gallery else None,
        scoping=measure_ood(predictions, first, options.ood) if options.ood else None,
        floors=measure_floors(inputs.training, studies, inputs.radiographs, sample, options.device, resamples)
        if options.floors
        else None,
        outside=tuple(measure_outside(each, predictors, gallery, resamples) for each in inputs.outside),
        pairs=measure_pairs(studies, predictions, annotations, first.engine, resamples) if options.pairs else (),
    )


def write_report(
    folder: Path,
    evaluation: Evaluation,
    studies: Sequence[Study],
    predictions: Sequence[StudyPrediction],
    mistakes: Sequence[Mistake],
) -> None:
    """Write the report of `evaluate`: page, metrics and tables; either all of them are replaced or none."""
    with staged_files(folder) as partial:
        write_tables(partial, evaluation, studies, predictions)
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
