"""Studies in, what the service would say of each out: for measuring a checkpoint and for fitting its decisions.

Legend: N studies.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from training.metrics import Sample
from xray.image import read_radiograph
from xray.mura import Study
from xray.predictor import Predictor, StudyPrediction


def predict_all(predictor: Predictor, studies: Sequence[Study]) -> Iterator[StudyPrediction]:
    """One pass for each study."""
    for study in studies:
        yield predictor.predict([read_radiograph(record.file) for record in study.records])


def sample_of(studies: Sequence[Study], predictions: Sequence[StudyPrediction]) -> Sample:
    return Sample(
        np.array([study.target for study in studies]),
        np.array([prediction.probability for prediction in predictions]),
        np.array([study.patient for study in studies]),
    )
