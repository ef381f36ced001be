"""Extends what is familiar to a checkpoint, and what is in its scope, so that a site's radiographs are both.

Legend: N radiographs, D numbers of an embedding, K dimensions of the space, A directions that may be added.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from training.export.fit_scope import FAMILIAR_QUANTILE, FOLDS
from training.export.limb_classifier import LIMBS_IN_SCOPE, LIMIT_RANGE
from xray.network.checkpoint import Checkpoint
from xray.network.embedding_space import DoubleArray, EmbeddingArray, EmbeddingSpace
from xray.network.ood import LimbClassifier

MAX_ADDED = 64
"""Maximum number of directions that are added to the space, a quarter of those that a fit to training data has."""


@dataclass(frozen=True)
class ExtendedScope:
    """A checkpoint's scope after it was extended to a site.

    Attributes:
        space: None if the checkpoint has none.
        limb_classifier: None if the checkpoint has none.
        remarks: sentences about what has changed, and what has not.
    """

    space: EmbeddingSpace | None
    limb_classifier: LimbClassifier | None
    remarks: tuple[str, ...]


def extend_scope(checkpoint: Checkpoint, embeddings_ND: EmbeddingArray, study_keys: Sequence[str]) -> ExtendedScope:
    """Extend a checkpoint's space and limits to the embeddings of a site's radiographs.

    Args:
        study_keys: key of each embedding's study, (N,).
    """
    space, limb_classifier = checkpoint.space, checkpoint.limb_classifier
    remarks = []
    if space is None:
        remarks.append("familiarity: the checkpoint has no limit, so none is fitted; `training fit-scope` adds one")
    else:
        extended = extend_space(space, embeddings_ND, study_keys)
        remarks.append(_describe_space(space, extended, embeddings_ND))
        space = extended
    if limb_classifier is None:
        remarks.append("scope: the checkpoint has no limb classifier, and color and gray levels have fixed limits")
    else:
        widened = widen_limb_limit(limb_classifier, embeddings_ND)
        remarks.append(_describe_limbs(limb_classifier, widened, embeddings_ND))
        limb_classifier = widened
    return ExtendedScope(space, limb_classifier, tuple(remarks))


def extend_space(space: EmbeddingSpace, embeddings_ND: EmbeddingArray, study_keys: Sequence[str]) -> EmbeddingSpace:
    """Add the fewest directions of a site's residuals to the space with which further studies of the site are familiar.

    The directions are those in which the site's embeddings differ most from the space. For each number of them,
    cross-validation over studies measures how far the site's radiographs remain from a space that was extended without
    them. If no number suffices, the largest is taken, and the limit is raised. No embedding's distance grows and no
    limit falls, so what was familiar before stays so.
    """
    outside_ND = _outside(space, embeddings_ND)
    held_out_NA = _held_out_residuals(outside_ND, study_keys)
    quantiles_A = np.quantile(held_out_NA, FAMILIAR_QUANTILE, axis=0)
    enough_A = quantiles_A <= space.limit
    added = int(np.argmax(enough_A)) if enough_A.any() else len(quantiles_A) - 1
    basis_DK = np.concatenate([space.basis_DK, _directions(outside_ND, added)], axis=1)
    limit = max(space.limit, float(quantiles_A[added]))
    return EmbeddingSpace(space.mean_D, np.ascontiguousarray(basis_DK, np.float32), limit)


def widen_limb_limit(limb_classifier: LimbClassifier, embeddings_ND: EmbeddingArray) -> LimbClassifier:
    """Raise the limb classifier's limit, if it would refuse more of a site's limbs than of those that it was fitted to.

    The limit stays within the range of a fit, so that images that are certainly no limbs stay out of scope.
    """
    probabilities_N = np.array([limb_classifier.distance(each) * limb_classifier.limit for each in embeddings_ND])
    needed = float(np.quantile(probabilities_N, LIMBS_IN_SCOPE))
    return replace(limb_classifier, limit=max(limb_classifier.limit, min(needed, LIMIT_RANGE[1])))


def _outside(space: EmbeddingSpace, embeddings_ND: EmbeddingArray) -> DoubleArray:
    """Return the component of each embedding outside the space, (N, D)."""
    basis_DK = space.basis_DK.astype(np.float64)
    centered_ND = embeddings_ND.astype(np.float64) - space.mean_D
    return np.asarray(centered_ND - (centered_ND @ basis_DK) @ basis_DK.T)


def _directions(outside_ND: DoubleArray, count: int) -> DoubleArray:
    """Return the `count` directions with most of the squared length of the components, (D, count), orthonormal."""
    return np.asarray(np.linalg.svd(outside_ND, full_matrices=False)[2][:count].T)


def _held_out_residuals(outside_ND: DoubleArray, study_keys: Sequence[str]) -> DoubleArray:
    """Return each radiograph's distance from a space with 0 to A - 1 directions of the other folds' studies, (N, A)."""
    _, studies_N = np.unique(study_keys, return_inverse=True)
    folds_N = np.random.default_rng(0).permutation(studies_N.max() + 1)[studies_N] % FOLDS
    most = min(MAX_ADDED, min(outside_ND.shape) // 2)  # fewer directions than the components span, as in a fit
    squares_NA = np.empty((len(outside_ND), most + 1))
    for fold in range(FOLDS):
        held_out = outside_ND[folds_N == fold]
        inside = held_out @ _directions(outside_ND[folds_N != fold], most)
        explained = np.cumsum(np.pad(inside**2, ((0, 0), (1, 0))), axis=1)
        squares_NA[folds_N == fold] = (held_out**2).sum(1, keepdims=True) - explained
    return np.sqrt(np.maximum(0, squares_NA))


def _describe_space(before: EmbeddingSpace, after: EmbeddingSpace, embeddings_ND: EmbeddingArray) -> str:
    familiar = np.mean([before.familiarity(each) >= 1 for each in embeddings_ND])
    found = f"familiarity: {familiar:.1%} of the site's radiographs were familiar"
    added = after.basis_DK.shape[1] - before.basis_DK.shape[1]
    if not added and after.limit == before.limit:
        return f"{found}, so the space and its limit are kept"
    limit = "is kept" if after.limit == before.limit else f"is raised from {before.limit:.4f} to {after.limit:.4f}"
    return f"{found}; the space gets {added} more directions, and its limit {limit}"


def _describe_limbs(before: LimbClassifier, after: LimbClassifier, embeddings_ND: EmbeddingArray) -> str:
    refused, still = (sum(each.distance(e) > 1 for e in embeddings_ND) for each in (before, after))
    found = f"scope: the limb classifier refuses {refused} of the site's {len(embeddings_ND)} radiographs"
    if after.limit == before.limit:
        return f"{found}, so its limit is kept"
    return f"{found}; its limit is raised from {before.limit:.3f} to {after.limit:.3f}, and {still} are still refused"
