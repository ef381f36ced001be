"""Fits a projection in which radiographs of the same body part and label are near each other.

Legend: N entries, D embedding, K vector, C classes.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from xray.gallery.entries import GalleryEntry
from xray.gallery.projection import Projection
from xray.gallery.vector_index import EmbeddingArray
from xray.network.embedding_space import principal_components

DoubleArray = npt.NDArray[np.float64]
ClassArray = npt.NDArray[np.int64]

COMMON_WEIGHT = 0.1
"""Weight of a direction that does not separate the classes; one that separates them completely has weight 1. It is not
0, so that of two entries of one class the more similar one is still nearer."""


def fit_projection(embeddings_ND: EmbeddingArray, entries: Sequence[GalleryEntry], dimension: int) -> Projection:
    """Fit a projection: whitened principal components, each weighted by how well it separates the classes.

    A class is a body part with a label. Within the classes the coordinates have covariance 1, so that a cosine does not
    count correlated coordinates twice; coordinates that separate the classes have larger weights (probabilistic linear
    discriminant analysis, Ioffe 2006, and Prince and Elder 2007).
    """
    mean_D, basis_DK = principal_components(embeddings_ND, dimension)
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


def largest_dimension(entries: Sequence[GalleryEntry]) -> int:
    """Return the largest dimension of a projection to fit: half as many as there are entries beyond one per class."""
    return (len(entries) - len(set(_classes(entries).tolist()))) // 2


def _classes(entries: Sequence[GalleryEntry]) -> ClassArray:
    return np.asarray(np.unique([f"{entry.body_part} {entry.label}" for entry in entries], return_inverse=True)[1])


def _whitening(covariance_KK: DoubleArray) -> DoubleArray:
    """Return the matrix that transforms coordinates with this covariance to covariance 1."""
    variances_K, axes_KK = np.linalg.eigh(covariance_KK)
    return np.asarray(axes_KK / np.sqrt(np.maximum(variances_K, np.finfo(float).eps)))
