"""Measures a checkpoint on a site's own labeled studies, and judges whether it is fit for that site."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec
import tyro

from training.dataset.radiographs import read_radiographs
from training.evaluate.metrics import RESAMPLES
from training.evaluate.predictions import predict_all
from training.site.figures import SiteSample, measure_site
from training.site.limits import SiteLimits, judge
from training.site.report import SiteReport, print_report
from training.site.site_data import describe_data, image_digests, require_unused
from training.site.site_page import write_page
from xray.artifact import staged_files
from xray.engines.base import DeviceChoice, PrecisionChoice
from xray.engines.registry import load_engine
from xray.errors import InputError
from xray.mura.overlap import require_disjoint
from xray.mura.studies import Study, read_split, records_of
from xray.network.checkpoint import load_checkpoint
from xray.predictor import Predictor


@dataclass(frozen=True)
class ValidateSiteOptions:
    """Measure a checkpoint on DATA/SPLIT, a site's own labeled studies, and judge whether it is fit for the site.

    The exit status is 1 if it is not fit.
    """

    checkpoint: Path
    """Checkpoint folder."""
    data: Path
    """Folder of the site's studies in MURA layout."""
    split: str = "valid"
    """Studies to which the checkpoint was neither trained nor adapted."""
    out: Path = Path("artifacts/site")
    """Folder for index.html, metrics.json and studies.csv."""
    limits: Annotated[SiteLimits, tyro.conf.arg(name="")] = field(default_factory=SiteLimits)
    device: DeviceChoice = "auto"
    precision: PrecisionChoice = "auto"
    """Precision of the network on a CPU; `auto` is the one that the service uses on this machine."""
    resamples: int = RESAMPLES
    """Number of bootstrap resamples for each interval."""
    allow_overlap: bool = False
    """Allow patients of the split in another split of the site's folder."""

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise InputError(f"--resamples is {self.resamples}; give at least 1.")


def validate_site(options: ValidateSiteOptions) -> SiteReport:
    """Measure a checkpoint on a site: predict every study, measure, judge, write the folder OUT and print the report.

    Raises:
        ArtifactError: the checkpoint is damaged.
        DatasetError: the split is empty, images cannot be read, patients are also in another split, or the checkpoint
            was trained on the images or adapted to some of them.
        NoSpaceError: the disk of OUT is full; the old report is kept.
    """
    split = read_split(options.data, options.split)
    studies, records = split.studies, records_of(split.studies)
    require_disjoint(options.data, options.split, studies, options.allow_overlap)
    checkpoint = load_checkpoint(options.checkpoint)
    digests = image_digests(records)
    site = describe_data(options.data, studies, digests)
    require_unused(checkpoint, site, digests)
    options.out.mkdir(parents=True, exist_ok=True)  # before the predictions, so that a failure shows at once
    predictor = Predictor.from_artifacts(checkpoint, load_engine(checkpoint, options.device, options.precision))
    predictions = predict_all(predictor, studies, read_radiographs(records))
    sample = SiteSample.from_predictions(studies, predictions, predictor)
    figures = measure_site(sample, options.resamples)
    reasons = judge(figures, options.limits)
    report = SiteReport(
        checkpoint.manifest, site, options.split, dict(split.left_out), options.limits, figures, reasons
    )
    write_report(options.out, report, studies, sample)
    print_report(report)
    print(f"page: {options.out / 'index.html'}")
    return report


def write_report(folder: Path, report: SiteReport, studies: Sequence[Study], site: SiteSample) -> None:
    """Write a site's metrics.json, studies.csv and index.html; either all of them are replaced or none."""
    with staged_files(folder) as partial:
        content = {**msgspec.to_builtins(report), "fit": report.fit}
        (partial / "metrics.json").write_bytes(msgspec.json.format(msgspec.json.encode(content)))
        _write_studies(partial / "studies.csv", studies, site)
        write_page(partial / "index.html", report, site)


def _write_studies(file: Path, studies: Sequence[Study], site: SiteSample) -> None:
    columns = (site.sample.probabilities, site.decisions_N, site.in_scope_N, site.familiarity_N)
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        header = ["study", "body_part", "patient", "target", "probability", "decision", "in_scope", "familiarity"]
        table.writerow(header)
        for study, *said in zip(studies, *(column.tolist() for column in columns), strict=True):
            table.writerow([study.key, study.body_part, study.patient, study.target, *said])
