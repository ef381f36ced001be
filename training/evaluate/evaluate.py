"""Measures a checkpoint on a split: figures with intervals, tables and a page.

Probabilities come from the same `Predictor` as the service's, so they are the service's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from tqdm import tqdm

from training.dataset.annotations import Annotation, read_annotations, say_unused
from training.dataset.loader import require_readable
from training.evaluate.evaluation import Evaluation, Row, page_of, print_evaluation, write_tables
from training.evaluate.metrics import RESAMPLES, Sample, auroc, calibration_of, figures_with_intervals
from training.evaluate.ood import scoping
from training.evaluate.pointing_game import pointing
from training.evaluate.predictions import ensembled, predict_all, sample_of
from training.evaluate.report import write_page
from training.evaluate.retrieval_metrics import retrieval
from training.evaluate.worst_cases import Mistake, worst_mistakes
from xray.artifact import staged_files
from xray.engines.engine import DeviceChoice, PrecisionChoice, load_engine
from xray.errors import DatasetError, InputError
from xray.gallery.gallery import Gallery
from xray.gallery.storage import load_gallery
from xray.mura.files import find_images, listing
from xray.mura.overlap import require_disjoint
from xray.mura.studies import Study, dataset_name, read_split, records_of
from xray.network.checkpoint import Checkpoint, load_checkpoint
from xray.predictor import Predictor, StudyPrediction

OVERALL, HARDWARE_FREE = "all", "hardware-free"


@dataclass(frozen=True)
class EvaluateOptions:
    """Measure a checkpoint on the studies of DATA/SPLIT."""

    checkpoint: Path
    """Checkpoint folder."""
    data: Path
    """Dataset folder in MURA layout."""
    also: tuple[Path, ...] = ()
    """Further checkpoints, whose probabilities are averaged with the first's; maps and neighbors stay the first's."""
    split: str = "valid"
    out: Path = Path("artifacts/evaluation")
    """Folder for index.html, metrics.json, studies.csv and radiographs.csv."""
    gallery: Path | None = None
    """Gallery folder of that checkpoint, to see how alike its neighbors are."""
    strangers: Path | None = None
    """Folder of images that are no radiographs of limbs, to see whether the gallery's scope tells them."""
    device: DeviceChoice = "auto"
    precision: PrecisionChoice = "auto"
    """The network's arithmetic on a CPU; `auto` is what the service takes on this machine."""
    resamples: int = RESAMPLES
    """Bootstrap resamples behind each interval."""
    allow_overlap: bool = False
    """Go on where patients of the split are in another split of the dataset, or in the gallery of one, too."""

    def __post_init__(self) -> None:
        if self.strangers and not self.gallery:
            raise InputError("--strangers is measured with the scope of a gallery; give --gallery too.")
        if self.resamples < 1:
            raise InputError(f"--resamples is {self.resamples}; give at least 1.")


def evaluate(options: EvaluateOptions) -> Evaluation:
    """Predict every study, measure, print the table and write OUT.

    Raises:
        ArtifactError: a checkpoint or the gallery is damaged, or they do not belong together.
        DatasetError: the split is empty, images cannot be read, or another split or the gallery has some of the
            patients; they are counted and named.
        NoSpaceError: the disk of OUT is full; the report that was there is kept.
    """
    split = read_split(options.data, options.split)
    studies = split.studies
    overlap = require_disjoint(options.data, options.split, studies, options.allow_overlap)
    require_readable(records_of(studies))
    options.out.mkdir(parents=True, exist_ok=True)  # now, while nothing is lost where it cannot be
    if options.strangers:
        find_images(options.strangers)  # it is measured last: whatever is wrong with it shall not cost hours
    checkpoints = [load_checkpoint(folder) for folder in (options.checkpoint, *options.also)]
    gallery = gallery_for(options, checkpoints[0], studies)
    predictors = [predictor_of(each, options) for each in checkpoints]
    predictions = ensembled([predict_all(each, studies) for each in predictors])
    annotations = read_annotations(options.data)
    say_unused(annotations, options.split, studies)
    evaluation = Evaluation(
        checkpoints[0].manifest,
        dataset_name(options.data),
        options.split,
        dict(split.left_out),
        overlap,
        rows_of(studies, predictions, annotations, options.resamples),
        calibration_of(sample_of(studies, predictions), options.resamples),
        pointing(studies, predictions, annotations, options.resamples),
        retrieval(studies, predictions, gallery, options.resamples) if gallery else None,
        scoping(predictions, predictors[0], gallery, options.strangers) if gallery and options.strangers else None,
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
    """Write the page, the figures and the tables, all of them or none."""
    with staged_files(folder) as partial:
        write_tables(partial, studies, predictions)
        (partial / "metrics.json").write_bytes(msgspec.json.format(msgspec.json.encode(evaluation)))
        write_page(partial / "index.html", page_of(evaluation, sample_of(studies, predictions), mistakes))


def gallery_for(options: EvaluateOptions, checkpoint: Checkpoint, studies: Sequence[Study]) -> Gallery | None:
    """The gallery, if one is given; in that of another split of the dataset no query may find its own patient.

    Raises:
        ArtifactError: it is damaged or another checkpoint's.
        DatasetError: counts and names the patients of the studies who are in it.
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
            + ". Build it without them, or go on with --allow-overlap."
        )
    return gallery


def predictor_of(checkpoint: Checkpoint, options: EvaluateOptions) -> Predictor:
    return Predictor(checkpoint.manifest, load_engine(checkpoint, options.device, options.precision))


def studies_with_hardware(annotations: Mapping[str, Annotation]) -> set[str] | None:
    """Dataset folders of the studies in which any image shows metal; None where nobody noted it."""
    noted = {path: annotation.hardware for path, annotation in annotations.items() if annotation.hardware is not None}
    return {path.rsplit("/", 1)[0] for path, hardware in noted.items() if hardware} if noted else None


def groups_of(studies: Sequence[Study], with_hardware: set[str] | None) -> dict[str, np.ndarray]:
    """Which studies belong to each row of the table."""
    parts = [study.body_part for study in studies]
    groups = {OVERALL: np.ones(len(studies), bool)}
    groups |= {part: np.array(parts) == part for part in sorted(set(parts))}
    if with_hardware is not None:
        free = [study.records[0].path.rsplit("/", 1)[0] not in with_hardware for study in studies]
        groups[HARDWARE_FREE] = np.array(free)
    return groups


def floors_of(studies: Sequence[Study]) -> np.ndarray:
    """For each study the share of abnormal ones among those of its body part."""
    targets: dict[str, list[int]] = {}
    for study in studies:
        targets.setdefault(study.body_part, []).append(study.target)
    return np.array([np.mean(targets[study.body_part]) for study in studies])


def rows_of(
    studies: Sequence[Study],
    predictions: Sequence[StudyPrediction],
    annotations: Mapping[str, Annotation],
    resamples: int,
) -> tuple[Row, ...]:
    """The figures of each group, the first of all studies."""
    sample, threshold, floors = sample_of(studies, predictions), predictions[0].threshold, floors_of(studies)
    groups = groups_of(studies, studies_with_hardware(annotations))
    return tuple(
        row_of(name, sample.rows(chosen), floors[chosen], threshold, resamples)
        for name, chosen in tqdm(groups.items(), desc="resampling", unit="group")
    )


def row_of(group: str, sample: Sample, floors: np.ndarray, threshold: float, resamples: int) -> Row:
    figures = figures_with_intervals(sample, threshold, resamples)
    return Row(group, len(sample.targets), int(sample.targets.sum()), figures, auroc(sample.targets, floors))
