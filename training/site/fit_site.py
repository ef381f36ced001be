"""Fits a checkpoint's scope, its head if it is asked for, and its decisions to a site's studies.

Legend: N studies, M radiographs, D numbers of an embedding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from training.evaluate.predictions import predict_all
from training.site.extend_scope import extend_scope
from training.site.figures import SiteSample
from training.site.fit_decision import describe_decision, fit_decision
from training.site.fit_head import RefittedHead, refit_head
from training.site.site_data import SiteImages, require_enough
from xray.engines.base import DeviceChoice, PrecisionChoice
from xray.engines.registry import choose_device, load_engine
from xray.mura.studies import Study
from xray.network.checkpoint import Checkpoint, load_checkpoint
from xray.network.embedding_space import EmbeddingArray
from xray.predictor import Predictor, StudyPrediction

KEPT_HEAD = "head: no change of its weights predicts further studies better, so it is kept"


@dataclass(frozen=True)
class FitOptions:
    """How a checkpoint is fitted to a site.

    Attributes:
        error_rate: maximum share of wrong decisions in either class.
    """

    refits_head: bool
    error_rate: float
    device: DeviceChoice
    precision: PrecisionChoice


@dataclass(frozen=True)
class SiteFit:
    """What was fitted to a site.

    Attributes:
        checkpoint: the checkpoint with everything that was fitted.
        has_new_weights: whether its weights differ from those of the checkpoint before.
        remarks: sentences about what has changed.
    """

    checkpoint: Checkpoint
    has_new_weights: bool
    remarks: tuple[str, ...]


def fit_to_site(folder: Path, site: SiteImages, options: FitOptions) -> SiteFit:
    """Fit the checkpoint in a folder to a site's studies.

    Studies that are out of scope even after the scope was extended have no part in the fit of head and decisions.

    Raises:
        ArtifactError: the checkpoint is damaged.
        DatasetError: too few studies of a class are in scope, or the checkpoint ranks them no better than chance.
    """
    checkpoint = load_checkpoint(folder)
    # An engine may change the network that it runs, so it gets one of its own.
    engine = load_engine(load_checkpoint(folder), options.device, options.precision)
    predictor = Predictor.from_artifacts(checkpoint, engine)
    predictions = predict_all(predictor, site.studies, site.radiographs)
    scope = extend_scope(checkpoint, *_embeddings(site.studies, predictions))
    predictor = replace(predictor, limb_classifier=scope.limb_classifier)
    in_scope_N = SiteSample.from_predictions(site.studies, predictions, predictor).in_scope_N
    answered = site.rows(in_scope_N)
    require_enough(answered.studies)
    head = refit_head(checkpoint, answered, choose_device(options.device)) if options.refits_head else None
    logits_N = np.array([each.logit for each in predictions])[in_scope_N] if head is None else head.held_out_logits_N
    manifest = fit_decision(checkpoint.manifest, logits_N, answered.targets_N, options.error_rate)
    if head is not None:
        manifest = replace(manifest, metrics={})  # they are of the old weights
    fitted = Checkpoint(
        model=checkpoint.model if head is None else head.model,
        manifest=manifest,
        space=scope.space,
        limb_classifier=scope.limb_classifier,
        adapted_images=checkpoint.adapted_images,
    )
    remarks = (*scope.remarks, *_describe_head(head, options), *describe_decision(manifest))
    return SiteFit(fitted, head is not None, remarks)


def _embeddings(studies: Sequence[Study], predictions: Sequence[StudyPrediction]) -> tuple[EmbeddingArray, list[str]]:
    """Return the embeddings of all radiographs, (M, D), and the keys of their studies."""
    pairs = [(each, study.key) for study, of in zip(studies, predictions, strict=True) for each in of.radiographs]
    return np.stack([each.embedding_D for each, _ in pairs]), [key for _, key in pairs]


def _describe_head(head: RefittedHead | None, options: FitOptions) -> tuple[str, ...]:
    if not options.refits_head:
        return ()
    return (KEPT_HEAD if head is None else head.remark,)
