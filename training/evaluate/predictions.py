"""Predicts the studies of a split like the service, to measure a checkpoint or to fit its thresholds."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from statistics import fmean

import numpy as np
from tqdm import tqdm

from training.evaluate.metrics import Sample
from xray.engines.batch_inference import infer_in_batches, prepare_ahead
from xray.images.radiograph import Radiograph
from xray.mura.studies import Study
from xray.network.decision import decide
from xray.predictor import Predictor, StudyPrediction
from xray.types import Label


def predict_all(
    predictor: Predictor, studies: Sequence[Study], radiographs: Sequence[Radiograph]
) -> list[StudyPrediction]:
    """Return the predictions for all studies of a split, with a progress bar.

    Args:
        radiographs: the radiographs of all studies, in the order of the records.
    """
    passes = infer_in_batches(predictor.engine, prepare_ahead(predictor.prepare, radiographs))
    bar = tqdm(passes, total=len(radiographs), desc=f"checkpoint {predictor.manifest.id}", unit="img")
    predictions = iter([predictor.read(output, 0, prepared) for prepared, output in bar])
    return [predictor.predict_study(list(islice(predictions, len(study.records)))) for study in studies]


def predict_ensemble(
    predictors: Sequence[Predictor], studies: Sequence[Study], radiographs: Sequence[Radiograph]
) -> list[StudyPrediction]:
    """Return the predictions of an ensemble for all studies of a split; see `predict_all` and `average_ensemble`."""
    return average_ensemble([predict_all(each, studies, radiographs) for each in predictors])


def average_ensemble(members: Sequence[Sequence[StudyPrediction]]) -> list[StudyPrediction]:
    """Average an ensemble's predictions: each study's probability and threshold; the rest is the first member's.

    The decision is the label, because no uncertainty band is fitted to the average, or `uncertain` for studies that are
    unfamiliar to the first member. One member's predictions stay as they are.
    """
    first, *others = members
    return [_mean(predictions) for predictions in zip(first, *others, strict=True)] if others else list(first)


def _mean(predictions: Sequence[StudyPrediction]) -> StudyPrediction:
    probability, threshold = (
        fmean(getattr(prediction, name) for prediction in predictions) for name in ("probability", "threshold")
    )
    label: Label = "abnormal" if probability >= threshold else "normal"
    decision, reason = decide(probability, label, None, predictions[0].familiarity)
    return replace(
        predictions[0],
        probability=probability,
        threshold=threshold,
        label=label,
        decision=decision,
        decision_reason=reason,
    )


def sample_of(studies: Sequence[Study], predictions: Sequence[StudyPrediction]) -> Sample:
    """Return the predictions as a sample for metrics: targets, probabilities and patients of the studies."""
    return Sample(
        np.array([study.target for study in studies]),
        np.array([prediction.probability for prediction in predictions]),
        np.array([study.patient for study in studies]),
    )
