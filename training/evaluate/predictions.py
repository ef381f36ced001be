"""Studies in, what the service would say of each out: for measuring a checkpoint and for fitting its decisions.

Legend: N studies.
"""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np
from tqdm import tqdm

from training.evaluate.metrics import Sample
from xray.images.decoding.decode import read_radiograph
from xray.mura.studies import Study
from xray.predictor import Predictor, StudyPrediction
from xray.types import Label


def predict_all(predictor: Predictor, studies: Sequence[Study]) -> list[StudyPrediction]:
    """One pass for each study, below a progress bar."""
    name = f"checkpoint {predictor.manifest.id}"
    return [
        predictor.predict([read_radiograph(record.file) for record in study.records])
        for study in tqdm(studies, desc=name, unit="study")
    ]


def ensembled(members: Sequence[Sequence[StudyPrediction]]) -> list[StudyPrediction]:
    """Each study with the mean of the members' probabilities and thresholds; all else is the first member's."""
    return [_mean(predictions) for predictions in zip(*members, strict=True)]


def _mean(predictions: Sequence[StudyPrediction]) -> StudyPrediction:
    probability, threshold = (
        fmean(getattr(prediction, name) for prediction in predictions) for name in ("probability", "threshold")
    )
    label: Label = "abnormal" if probability >= threshold else "normal"
    return replace(predictions[0], probability=probability, threshold=threshold, label=label, decision=label)


def sample_of(studies: Sequence[Study], predictions: Sequence[StudyPrediction]) -> Sample:
    return Sample(
        np.array([study.target for study in studies]),
        np.array([prediction.probability for prediction in predictions]),
        np.array([study.patient for study in studies]),
    )
