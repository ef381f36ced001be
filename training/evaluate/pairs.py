"""Measures whether the logit follows a finding: on counterfactual pairs, radiographs that differ in nothing else.

In abnormal radiographs the findings are erased, and the logit should fall. Into normal ones a finding of another
radiograph is pasted, and the logit should rise. The same operations without a finding, a spare frame erased and a
normal patch pasted, are the null operations: if a network follows findings and not the traces of the operation, the
logit moves either way about equally often.

Legend: S canvas side.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from tqdm import tqdm

from training.dataset.annotations import Annotation, boxes_of, draw_boxes
from training.dataset.counterfactual import Frame, erase, frames_of, move_patch, random_frame, spare_frame
from training.evaluate.metrics import Interval, mean_with_interval
from xray.engines.base import Engine
from xray.engines.batch_inference import infer_in_batches, prepare_ahead
from xray.errors import DatasetError
from xray.images.radiograph import PixelArray
from xray.mura.studies import MuraRecord, Study, records_of
from xray.predictor import Prediction, StudyPrediction

SEED = 0
"""Seed of every choice of a place, a finding or a patch, together with the path of the radiograph."""
TRIES = 20
"""Number of random places among which a spare frame without a finding is sought."""
ERASED, PASTED = "findings erased", "finding pasted in"
"""Names of the changes; the logit falls after the first and rises after the second if the network follows findings."""
DIRECTIONS = {ERASED: -1, PASTED: 1}
"""Sign of the expected change of the logit."""


@dataclass(frozen=True)
class Moves:
    """How often the logit moves in the expected direction over some counterfactual pairs.

    Attributes:
        share: share of the pairs, with an interval over patients; a logit that stays counts one half.
    """

    pairs: int
    share: Interval


@dataclass(frozen=True)
class PairMetrics:
    """The result of one change over all counterfactual pairs.

    Attributes:
        change: `ERASED` or `PASTED`.
        finding: pairs that differ in a finding.
        null: pairs that differ in nothing that matters, by the same operation and with the same expected direction.
        left_out: number of radiographs that are not changed, because their findings or the patch are too large.
    """

    change: str
    finding: Moves
    null: Moves
    left_out: int


@dataclass(frozen=True)
class View:
    """A radiograph of which counterfactual pairs are made.

    Attributes:
        region_1SS: mask of its findings on the canvas, uint8.
    """

    record: MuraRecord
    prediction: Prediction
    region_1SS: PixelArray

    @property
    def canvas_1SS(self) -> PixelArray:
        """The view's input to the network, before it is changed for a pair."""
        return self.prediction.prepared.pixels_1SS


@dataclass(frozen=True)
class ChangedView:
    """The second radiograph of a counterfactual pair; the first is the view that was changed.

    Attributes:
        has_finding: whether the pair differs in a finding; False for the null operation.
        pixels_1SS: uint8, input of the network.
    """

    view: View
    has_finding: bool
    pixels_1SS: PixelArray


def require_boxes(studies: Sequence[Study], annotations: Mapping[str, Annotation]) -> None:
    """Check that counterfactual pairs can be made of the studies.

    Raises:
        DatasetError: no radiograph has a box.
    """
    if not any(boxes_of(record.path, annotations) for record in records_of(studies)):
        raise DatasetError(
            "--pairs need radiographs of the split with boxes in annotations.csv, and there are none; add boxes, or "
            "leave --pairs out."
        )


def measure_pairs(
    studies: Sequence[Study],
    predictions: Sequence[StudyPrediction],
    annotations: Mapping[str, Annotation],
    engine: Engine,
    resamples: int,
) -> tuple[PairMetrics, ...]:
    """Make pairs of all radiographs with boxes and all of normal studies, and measure how the logit moves.

    Args:
        predictions: from the engine, which also runs the changed radiographs.
    """
    views = [
        View(record, each, draw_boxes(boxes_of(record.path, annotations), each.prepared.placement))
        for study, prediction in zip(studies, predictions, strict=True)
        for record, each in zip(study.records, prediction.radiographs, strict=True)
    ]
    abnormal = [view for view in views if view.region_1SS.any()]
    normal = [view for view in views if not view.record.target and not view.region_1SS.any()]
    return (
        _measure(ERASED, abnormal, _erase_findings, engine, resamples),
        _measure(PASTED, normal, partial(_paste_finding, abnormal=abnormal, normal=normal), engine, resamples),
    )


def pairs_table(pairs: Sequence[PairMetrics]) -> list[list[str]]:
    """Return the table of the counterfactual pairs: a header, then one line for each change."""
    lines = [["change", "pairs", "logit follows", "null pairs", "same direction", "left out"]]
    for each in pairs:
        finding, null = ([str(moves.pairs), str(moves.share)] for moves in (each.finding, each.null))
        lines.append([each.change, *finding, *null, str(each.left_out)])
    return lines


def _measure(
    change: str, views: Sequence[View], make: Callable[[View], list[ChangedView]], engine: Engine, resamples: int
) -> PairMetrics:
    changed = (each for pairs in prepare_ahead(make, views) for each in pairs)
    followed: dict[bool, list[float]] = {True: [], False: []}
    patients: dict[bool, list[str]] = {True: [], False: []}
    for each, output in tqdm(infer_in_batches(engine, changed), desc=change, unit="img"):
        move = float(output.logits_B[0]) - each.view.prediction.logit
        followed[each.has_finding].append((1 + np.sign(move) * DIRECTIONS[change]) / 2)
        patients[each.has_finding].append(each.view.record.patient)
    finding, null = (_moves(followed[has_finding], patients[has_finding], resamples) for has_finding in (True, False))
    return PairMetrics(change, finding, null, left_out=len(views) - finding.pairs)


def _moves(followed: Sequence[float], patients: Sequence[str], resamples: int) -> Moves:
    if not followed:
        return Moves(0, Interval(float("nan"), float("nan"), float("nan")))
    return Moves(len(followed), mean_with_interval(np.array(followed), np.array(patients), resamples))


def _random(view: View) -> np.random.Generator:
    """Return the generator of a view's pairs, which does not depend on the other views or on the order of threads."""
    return np.random.default_rng([SEED, *view.record.path.encode()])


def _erase_findings(view: View) -> list[ChangedView]:
    """Return a view without its findings and, for the null operation, without as many spare frames."""
    random, own = _random(view), frames_of(view.region_1SS)
    erased_1SS = erase(view.canvas_1SS, own, random)
    if erased_1SS is None:
        return []
    changed = [ChangedView(view, has_finding=True, pixels_1SS=erased_1SS)]
    spare = [frame for like in own if (frame := _spare_frame(view, like, random))]
    spared_1SS = erase(view.canvas_1SS, spare, random) if len(spare) == len(own) else None
    return changed if spared_1SS is None else [*changed, ChangedView(view, has_finding=False, pixels_1SS=spared_1SS)]


def _spare_frame(view: View, like: Frame, random: np.random.Generator) -> Frame | None:
    """Return a frame of the size of another that has no finding; None if there is hardly a place for it."""
    tried = (spare_frame((view.canvas_1SS, view.region_1SS), like, random) for _ in range(TRIES))
    return next((frame for frame in tried if frame is not None), None)


def _paste_finding(view: View, abnormal: Sequence[View], normal: Sequence[View]) -> list[ChangedView]:
    """Return a normal view with another's finding and, for the null operation, with a patch of another normal view."""
    random = _random(view)
    donor = abnormal[int(random.integers(len(abnormal)))]
    frames = frames_of(donor.region_1SS)
    frame = frames[int(random.integers(len(frames)))]
    pasted = move_patch(view.canvas_1SS, (donor.canvas_1SS, donor.region_1SS), frame, random)
    if pasted is None:
        return []
    changed = [ChangedView(view, has_finding=True, pixels_1SS=pasted[0])]
    others = [other for other in normal if other.record.patient != view.record.patient]
    if not others:
        return changed
    other = others[int(random.integers(len(others)))]
    patch = random_frame(other.canvas_1SS, frame, random)
    null = move_patch(view.canvas_1SS, (other.canvas_1SS, other.region_1SS), patch, random)
    return changed if null is None else [*changed, ChangedView(view, has_finding=False, pixels_1SS=null[0])]
