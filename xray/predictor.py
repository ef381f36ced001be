"""Predicts a study from its radiographs. All probabilities of the program are computed here.

    Radiograph -> prepare -> engine.forward -> read -> Prediction -> predict_study -> StudyPrediction

The steps are separate so that a service can batch the forward pass of many callers; `predict` runs all of them.

Legend: B batch, S canvas side, D embedding, h, w cells of the map, n radiographs of a study.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from xray.engines.base import Engine
from xray.errors import InputError
from xray.images.preprocess import MapArray, Placement, preprocess
from xray.images.radiograph import PixelArray, Radiograph
from xray.network.cam import Cam, cam_on_radiograph
from xray.network.checkpoint import Checkpoint, CheckpointManifest
from xray.network.decision import Decision, decide, pool_views
from xray.network.embedding_space import EmbeddingArray, EmbeddingSpace
from xray.network.model import ModelOutput
from xray.network.ood import LimbClassifier, Scope, measure_scope
from xray.types import Label

if TYPE_CHECKING:
    from xray.gallery.gallery import Gallery


@dataclass(frozen=True)
class Prepared:
    """A radiograph that the predictor has prepared for its engine.

    Attributes:
        pixels_1SS: uint8, the network's square canvas.
        placement: position of the radiograph on the canvas, to restore maps to its pixels.
    """

    radiograph: Radiograph
    pixels_1SS: PixelArray
    placement: Placement


@dataclass(frozen=True)
class Prediction:
    """The predictor's result for one radiograph.

    Attributes:
        logit: logit before calibration: the pooled `cam_hw` plus the classifier's bias.
        attention: log weight within its study, up to a constant; 0 if the network has no attention.
        probability: of abnormality, calibrated, from 0 to 1.
        embedding_D: float32 of length 1.
        cam_hw: float32, evidence of each cell of the canvas for abnormality.
        familiarity: likeness to the training data; below 1 it is unfamiliar. None if the checkpoint has no limit.
    """

    prepared: Prepared
    logit: float
    attention: float
    probability: float
    embedding_D: EmbeddingArray
    cam_hw: MapArray
    familiarity: float | None = None

    def cam(self) -> Cam:
        """Return the predicted map on the radiograph's own pixel grid."""
        return cam_on_radiograph(self.cam_hw, self.prepared.placement)


@dataclass(frozen=True)
class StudyPrediction:
    """The predictor's result for a study.

    Attributes:
        logit: logit pooled over the radiographs, before calibration.
        probability: of abnormality, calibrated, from 0 to 1.
        label: `abnormal` if the probability is at least the threshold.
        decision: the label, or `uncertain` if a radiograph is unfamiliar or the probability is in the checkpoint's
            uncertainty band.
        decision_reason: why the decision is `uncertain`, as a sentence; None for other decisions.
        familiarity: smallest familiarity of the radiographs; None if the checkpoint has no limit.
        weights: weights of the radiographs in the study's logit, which sum to 1.
        embedding_D: mean direction of the radiographs' embeddings, float32 of length 1.
    """

    logit: float
    probability: float
    label: Label
    decision: Decision
    decision_reason: str | None
    familiarity: float | None
    threshold: float
    weights: tuple[float, ...]
    embedding_D: EmbeddingArray
    radiographs: tuple[Prediction, ...]

    @property
    def familiar(self) -> bool | None:
        """Whether every radiograph is like the training data; None if the checkpoint has no limit."""
        return None if self.familiarity is None else self.familiarity >= 1


@dataclass(frozen=True)
class Predictor:
    """The predictor that the service and all commands share: an engine, and the manifest to interpret its outputs.

    The engine runs the network of the checkpoint that the manifest is from.

    Attributes:
        space: space of the training data's embeddings; None if neither checkpoint nor gallery has one.
        limb_classifier: tells radiographs of limbs from other images; None if the checkpoint has none.
    """

    manifest: CheckpointManifest
    engine: Engine
    space: EmbeddingSpace | None = None
    limb_classifier: LimbClassifier | None = None

    @classmethod
    def from_artifacts(cls, checkpoint: Checkpoint, engine: Engine, gallery: "Gallery | None" = None) -> Self:
        """Make a predictor of a checkpoint, an engine that runs it, and its gallery.

        Version 0.1 kept the space and its limit in the gallery; if the checkpoint has none, the gallery's is used.
        """
        space = checkpoint.space
        if space is None and gallery is not None and gallery.projection and gallery.manifest.scope_limit is not None:
            projection = gallery.projection
            space = EmbeddingSpace(projection.mean_D, projection.basis_DK, gallery.manifest.scope_limit)
        return cls(checkpoint.manifest, engine, space, checkpoint.limb_classifier)

    def predict(self, radiographs: Sequence[Radiograph]) -> StudyPrediction:
        """Predict one study in all steps, with its radiographs in one batch."""
        prepared = [self.prepare(radiograph) for radiograph in radiographs]
        output = self.engine.forward(np.stack([each.pixels_1SS for each in prepared]))
        return self.predict_study([self.read(output, row, each) for row, each in enumerate(prepared)])

    def prepare(self, radiograph: Radiograph) -> Prepared:
        """Preprocess a radiograph for prediction, as specified in the checkpoint's manifest."""
        return Prepared(radiograph, *preprocess(radiograph, self.manifest.preprocess))

    def read(self, output: ModelOutput, row: int, prepared: Prepared) -> Prediction:
        """Turn a row of the engine's output into the prediction for the radiograph in that row of the batch."""
        logit = float(output.logits_B[row])
        # Copy, so that a cached prediction does not pin the whole batch in memory.
        embedding_D = output.embeddings_BD[row].numpy().copy()
        return Prediction(
            prepared=prepared,
            logit=logit,
            attention=float(output.attentions_B[row]),
            probability=self.manifest.calibration.probability(logit),
            embedding_D=embedding_D,
            cam_hw=output.cams_Bhw[row].numpy().copy(),
            familiarity=self.space.familiarity(embedding_D) if self.space else None,
        )

    def predict_study(self, predictions: Sequence[Prediction], threshold_name: str = "default") -> StudyPrediction:
        """Predict a study from its radiographs' predictions: pool them, calibrate and decide.

        Args:
            threshold_name: name of one of the manifest's thresholds.

        Raises:
            InputError: the manifest has no threshold of that name.
        """
        manifest = self.manifest
        threshold = self.find_threshold(threshold_name)
        logits_n = np.array([prediction.logit for prediction in predictions])
        attentions_n = np.array([prediction.attention for prediction in predictions])
        logit, weights_n = pool_views(logits_n, attentions_n, manifest.study_pooling)
        probability = manifest.calibration.probability(logit)
        label: Label = manifest.labels[int(probability >= threshold)]
        direction_D = np.sum([prediction.embedding_D for prediction in predictions], axis=0)
        familiarity = min((each.familiarity for each in predictions if each.familiarity is not None), default=None)
        decision, reason = decide(probability, label, manifest.uncertainty, familiarity)
        return StudyPrediction(
            logit=logit,
            probability=probability,
            label=label,
            decision=decision,
            decision_reason=reason,
            familiarity=familiarity,
            threshold=threshold,
            weights=tuple(weights_n.tolist()),
            embedding_D=direction_D / np.linalg.norm(direction_D),
            radiographs=tuple(predictions),
        )

    def scope(self, prediction: Prediction) -> Scope:
        """Measure the distance of an image from radiographs of limbs, to which alone the network can be applied."""
        return measure_scope(prediction.prepared.radiograph, prediction.embedding_D, self.limb_classifier)

    def find_threshold(self, name: str) -> float:
        """Return the predictor's threshold with a name, a probability from 0 to 1, from the manifest.

        Raises:
            InputError: the manifest has no threshold of that name.
        """
        thresholds = self.manifest.thresholds
        if name not in thresholds:
            raise InputError(f"This checkpoint has no threshold with that name; choose one of {', '.join(thresholds)}.")
        return thresholds[name]
