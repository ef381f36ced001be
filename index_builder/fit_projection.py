"""Embeddings and their classes in, the projection that brings like beside like out, and how far it may be left.

Legend: N entries, D embedding, K vector, C classes.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from xray.gallery.entries import GalleryEntry
from xray.gallery.projection import Projection
from xray.gallery.vector_index import EmbeddingArray

DoubleArray = npt.NDArray[np.float64]
ClassArray = npt.NDArray[np.int64]

COMMON_WEIGHT = 0.1
"""Of what tells no class from another, beside 1 for what tells them apart completely: of two entries of a class, the
more similar one is still nearer."""
FOLDS = 5
SCOPE_QUANTILE = 0.98
"""Share of entries that lie within the scope of a projection that was fitted without them. Of other limbs the starter's
gallery then refuses one in a hundred, and nine chests of ten; at 0.99 it was one in two hundred, and five of ten."""


def fit_projection(embeddings_ND: EmbeddingArray, entries: Sequence[GalleryEntry], dimension: int) -> Projection:
    """Principal components, whitened within the classes, weighed by how well they tell the classes apart.

    A class is a body part with a label. Within the classes the coordinates have covariance 1, so that a cosine counts
    nothing twice; those along which the classes lie apart weigh more (probabilistic linear discriminant analysis, Ioffe
    2006, and Prince and Elder 2007).
    """
    mean_D, basis_DK = _principal_components(embeddings_ND, dimension)
    coordinates_NK = (embeddings_ND - mean_D) @ basis_DK
    classes_N = _classes(entries)
    counts_C = np.bincount(classes_N)
    means_CK = np.stack([coordinates_NK[classes_N == each].mean(0) for each in range(len(counts_C))])
    rest_NK = coordinates_NK - means_CK[classes_N]
    whitening_KK = _whitening(rest_NK.T @ rest_NK / len(entries))
    means_CK = means_CK @ whitening_KK
    between_K, axes_KK = np.linalg.eigh((means_CK.T * counts_C) @ means_CK / len(entries))
    between_K = np.maximum(between_K, 0)
    weights_K = np.sqrt(COMMON_WEIGHT + between_K / (1 + between_K))
    parts = (mean_D, basis_DK, whitening_KK @ axes_KK * weights_K)
    return Projection(*(np.ascontiguousarray(part, np.float32) for part in parts))


def scope_limit(embeddings_ND: EmbeddingArray, entries: Sequence[GalleryEntry], dimension: int) -> float:
    """The residual that few entries exceed under components of the other studies, in five turns."""
    _, studies_N = np.unique([entry.study_key for entry in entries], return_inverse=True)
    folds_N = np.random.default_rng(0).permutation(studies_N.max() + 1)[studies_N] % FOLDS
    residuals = [
        _residuals(embeddings_ND[folds_N == fold], *_principal_components(embeddings_ND[folds_N != fold], dimension))
        for fold in range(FOLDS)
    ]
    return float(np.quantile(np.concatenate(residuals), SCOPE_QUANTILE))


def largest_dimension(entries: Sequence[GalleryEntry]) -> int:
    """Directions in which so many entries can be known to vary within their classes, in any four of five folds."""
    return (len(entries) - len(set(_classes(entries).tolist()))) // 2


def _principal_components(embeddings_ND: EmbeddingArray, dimension: int) -> tuple[DoubleArray, DoubleArray]:
    """The mean (D,) and the directions of greatest variance (D, K), orthonormal."""
    mean_D = embeddings_ND.mean(0, dtype=np.float64)
    centred_ND = embeddings_ND - mean_D
    _, axes_DD = np.linalg.eigh(centred_ND.T @ centred_ND)
    return mean_D, axes_DD[:, ::-1][:, :dimension]


def _residuals(embeddings_ND: EmbeddingArray, mean_D: DoubleArray, basis_DK: DoubleArray) -> DoubleArray:
    centred_ND = embeddings_ND - mean_D
    return np.asarray(np.linalg.norm(centred_ND - (centred_ND @ basis_DK) @ basis_DK.T, axis=1))


def _classes(entries: Sequence[GalleryEntry]) -> ClassArray:
    return np.asarray(np.unique([f"{entry.body_part} {entry.label}" for entry in entries], return_inverse=True)[1])


def _whitening(covariance_KK: DoubleArray) -> DoubleArray:
    """The matrix that gives coordinates of this covariance the covariance 1."""
    variances_K, axes_KK = np.linalg.eigh(covariance_KK)
    return np.asarray(axes_KK / np.sqrt(np.maximum(variances_K, np.finfo(float).eps)))
