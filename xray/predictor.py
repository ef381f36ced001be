"""Radiographs in, what the network says about their study out; the one place where a logit becomes a probability.

    Radiograph -> prepare -> engine.forward -> read -> Prediction -> judge -> StudyPrediction

The steps are separate so that a service can batch the forward pass of many callers; `predict` takes them in a row.

Legend: B batch, S canvas side, D embedding, h, w cells of the map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xray.engines.base import Engine
from xray.errors import InputError
from xray.images.preprocess import MapArray, Placement, preprocess
from xray.images.radiograph import PixelArray, Radiograph
from xray.network.cam import Cam, cam_on_radiograph
from xray.network.checkpoint import CheckpointManifest
from xray.network.decision import Decision, pool_views
from xray.network.model import ModelOutput
from xray.types import Label

EmbeddingArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prepared:
    """A radiograph, ready for the engine.

    Attributes:
        pixels_1SS: uint8.
        placement: the way back from the canvas.
    """

    radiograph: Radiograph
    pixels_1SS: PixelArray
    placement: Placement


@dataclass(frozen=True)
class Prediction:
    """What the network says about one radiograph.

    Attributes:
        logit: before calibration; `cam_hw`, pooled, plus the classifier's bias.
        attention: log weight within its study, up to a constant, where the study's pooling asks for it.
        probability: of abnormality, calibrated.
        embedding_D: float32 of length 1.
        cam_hw: float32, how much each cell of the canvas speaks for abnormality.
    """

    prepared: Prepared
    logit: float
    attention: float
    probability: float
    embedding_D: EmbeddingArray
    cam_hw: MapArray

    def cam(self) -> Cam:
        """The map on the radiograph's own grid."""
        return cam_on_radiograph(self.cam_hw, self.prepared.placement)


@dataclass(frozen=True)
class StudyPrediction:
    """What the network says about a study.

    Attributes:
        logit: pooled over the radiographs, before calibration.
        probability: of abnormality, calibrated.
        label: `abnormal` when the probability reaches the threshold.
        decision: the label, or `uncertain` where the checkpoint's band says that either may be true.
        weights: how much each radiograph weighed in the probability; they sum to 1.
        embedding_D: the radiographs' mean direction, float32 of length 1.
    """

    logit: float
    probability: float
    label: Label
    decision: Decision
    threshold: float
    weights: tuple[float, ...]
    embedding_D: EmbeddingArray
    radiographs: tuple[Prediction, ...]


@dataclass(frozen=True)
class Predictor:
    """A checkpoint's rules around an engine that runs its network."""

    manifest: CheckpointManifest
    engine: Engine

    def predict(self, radiographs: Sequence[Radiograph]) -> StudyPrediction:
        """All steps for one study, in one batch."""
        prepared = [self.prepare(radiograph) for radiograph in radiographs]
        output = self.engine.forward(np.stack([each.pixels_1SS for each in prepared]))
        return self.judge([self.read(output, row, each) for row, each in enumerate(prepared)])

    def prepare(self, radiograph: Radiograph) -> Prepared:
        return Prepared(radiograph, *preprocess(radiograph, self.manifest.preprocess))

    def read(self, output: ModelOutput, row: int, prepared: Prepared) -> Prediction:
        """One row of the engine's output as a prediction."""
        logit = float(output.logits_B[row])
        # Copies, lest a prediction that is kept keep its whole batch.
        embedding_D, cam_hw = output.embeddings_BD[row].numpy().copy(), output.cams_Bhw[row].numpy().copy()
        attention, probability = float(output.attentions_B[row]), self.manifest.calibration.probability(logit)
        return Prediction(prepared, logit, attention, probability, embedding_D, cam_hw)

    def judge(self, predictions: Sequence[Prediction], threshold: str = "default") -> StudyPrediction:
        """Pool the radiographs of one study, calibrate and decide.

        Args:
            threshold: the name of one of the manifest's.

        Raises:
            InputError: the manifest has no threshold of that name.
        """
        manifest, least = self.manifest, self.threshold(threshold)
        logits_n = np.array([prediction.logit for prediction in predictions])
        attentions_n = np.array([prediction.attention for prediction in predictions])
        logit, weights_n = pool_views(logits_n, attentions_n, manifest.study_pooling)
        probability = manifest.calibration.probability(logit)
        label: Label = manifest.labels[int(probability >= least)]
        direction_D = np.sum([prediction.embedding_D for prediction in predictions], axis=0)
        return StudyPrediction(
            logit,
            probability,
            label,
            manifest.uncertainty.decide(probability) if manifest.uncertainty else label,
            least,
            tuple(weights_n.tolist()),
            direction_D / np.linalg.norm(direction_D),
            tuple(predictions),
        )

    def threshold(self, name: str) -> float:
        """Raises: InputError: the manifest has no threshold of that name."""
        thresholds = self.manifest.thresholds
        if name not in thresholds:
            raise InputError(f"This checkpoint has no threshold of that name; choose one of {', '.join(thresholds)}.")
        return thresholds[name]
