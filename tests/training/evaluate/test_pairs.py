"""The logit of a network that sees findings follows them; the logit of another stays, or moves either way."""

from pathlib import Path

import numpy as np
import pytest

from tests.phantoms import draw_phantom
from tests.training.evaluate.fake_engine import SIZE, fake_predictor
from training.dataset.annotations import Annotation, Box
from training.evaluate.pairs import ERASED, PASTED, PairMetrics, measure_pairs, require_boxes
from training.evaluate.predictions import predict_all
from xray.errors import DatasetError
from xray.images.radiograph import PixelArray, Radiograph
from xray.mura.studies import MuraRecord, Study
from xray.predictor import Predictor

FINDING = Box(left=0.44, top=0.64, width=0.1, height=0.1)
STEP = 140
"""Difference between neighboring pixels that only the drawn findings have, wherever they are blended in."""
STUDIES = [
    Study((MuraRecord(f"image{n}.png", Path(), "XR_HAND", f"patient{n}", "study1", target=n % 2),)) for n in range(12)
]
ANNOTATIONS = {
    study.records[0].path: Annotation(hardware=None, boxes=(FINDING,) if study.target else ()) for study in STUDIES
}


def radiograph(study: Study) -> Radiograph:
    """A phantom, with a bright cross in its dark box if the study is abnormal."""
    pixels = draw_phantom(int(study.patient[7:]), height=SIZE, width=SIZE)
    if study.target:
        top, left, side = (round(share * SIZE) for share in (FINDING.top, FINDING.left, FINDING.width))
        pixels[top : top + side, left : left + side] = 40
        pixels[top : top + side, left + side // 2 - 2 : left + side // 2 + 2] = 255
        pixels[top + side // 2 - 2 : top + side // 2 + 2, left : left + side] = 255
    return Radiograph(pixels)


def measure(predictor: Predictor) -> dict[str, PairMetrics]:
    predictions = predict_all(predictor, STUDIES, [radiograph(study) for study in STUDIES])
    pairs = measure_pairs(STUDIES, predictions, ANNOTATIONS, predictor.engine, resamples=50)
    return {each.change: each for each in pairs}


def steps(canvas: PixelArray) -> float:
    return float((np.abs(np.diff(canvas.astype(int))) > STEP).sum())


def test_logit_that_sees_only_findings_follows_every_finding_and_no_null_operation() -> None:
    pairs = measure(fake_predictor(steps))
    assert pairs.keys() == {ERASED, PASTED}
    for each in pairs.values():
        assert each.finding.pairs == 6
        assert each.left_out == 0
        assert (each.finding.share.value, each.finding.share.low) == (1.0, 1.0)
        assert each.null.pairs == 6
        assert each.null.share.value == 0.5  # a logit that stays counts one half


def test_logit_that_never_moves_is_at_one_half() -> None:
    pairs = measure(fake_predictor(lambda canvas: 0.0))
    assert [each.finding.share.value for each in pairs.values()] == [0.5, 0.5]


def test_logit_that_falls_with_the_finding_goes_the_wrong_way() -> None:
    pairs = measure(fake_predictor(lambda canvas: -steps(canvas)))
    assert [each.finding.share.value for each in pairs.values()] == [0.0, 0.0]


def test_pairs_are_the_same_each_time() -> None:
    predictor = fake_predictor(lambda canvas: float(canvas.astype(np.int64).sum() % 1009))
    assert measure(predictor) == measure(predictor)


def test_findings_too_large_to_erase_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    large = Annotation(hardware=None, boxes=(Box(0.1, 0.1, 0.8, 0.8),))
    abnormal = next(study for study in STUDIES if study.target)
    monkeypatch.setitem(ANNOTATIONS, abnormal.records[0].path, large)
    pairs = measure(fake_predictor(steps))
    assert (pairs[ERASED].finding.pairs, pairs[ERASED].left_out) == (5, 1)


def test_split_without_boxes_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"--pairs need radiographs of the split with boxes in annotations\.csv"):
        require_boxes(STUDIES, {})
