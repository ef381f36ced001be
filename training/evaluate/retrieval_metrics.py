"""Measures how similar the neighbors from a gallery are to their queries.

Legend: Q queries, K neighbors of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.evaluate.metrics import Interval, auroc, mean_with_interval
from xray.errors import InputError
from xray.gallery.entries import GalleryEntry
from xray.gallery.gallery import Gallery, Neighbor, NeighborQuery, abnormal_share
from xray.gallery.vector_index import EmbeddingArray
from xray.mura.studies import MuraRecord, Study, records_of
from xray.predictor import StudyPrediction

DEPTHS = (1, 5, 10)
"""Numbers of nearest neighbors for which the precision is measured."""
BoolArray = npt.NDArray[np.bool_]
ALIKE = ("body part", "label", "both")
"""The attributes in which a neighbor can agree with its query."""


@dataclass(frozen=True)
class Precision:
    """The precision of retrieval: the share of neighbors that agree with their query, for one group of queries.

    Attributes:
        at: precision by depth, then by one of `ALIKE`.
        chance: precision of a neighbor drawn at random, by one of `ALIKE`.
    """

    queries: int
    at: dict[int, dict[str, Interval]]
    chance: dict[str, float]


@dataclass(frozen=True)
class Retrieval:
    """The metrics of retrieval: quality of the neighbors, and of their labels as a second opinion.

    Attributes:
        groups: precision for all queries and for the abnormal ones, by name.
        second_opinion: AUROC over studies of the share of abnormal neighbors.
        agreement: share of studies for which the majority of the neighbors has the network's label.
    """

    groups: dict[str, Precision]
    second_opinion: float
    agreement: float


def measure_retrieval(
    studies: Sequence[Study], predictions: Sequence[StudyPrediction], gallery: Gallery, resamples: int
) -> Retrieval:
    """Measure retrieval by the gallery's neighbors of each radiograph, except those of its own study.

    Raises:
        InputError: the gallery is too small.
    """
    records = records_of(studies)
    found = [
        _neighbors(gallery, each.embedding_D, study)
        for study, prediction in zip(studies, predictions, strict=True)
        for each in prediction.radiographs
    ]
    alike, abnormal_Q = _alike(records, found), np.array([record.target == 1 for record in records])
    groups = {"all": np.ones(len(records), bool), "abnormal": abnormal_Q}
    return Retrieval(
        {
            name: _precision(alike, chosen_Q, records, gallery.entries, resamples)
            for name, chosen_Q in groups.items()
            if chosen_Q.any()
        },
        *_second_opinion(studies, predictions, gallery),
    )


def _neighbors(gallery: Gallery, embedding_D: EmbeddingArray, study: Study) -> list[Neighbor]:
    query = NeighborQuery(k=max(DEPTHS), exclude_study=study.key)
    found = gallery.search(embedding_D, query)
    if len(found) < query.k:
        raise InputError(f"The gallery has {len(found)} entries besides those of {study.key}; use a larger gallery.")
    return found


def _alike(records: Sequence[MuraRecord], found: Sequence[Sequence[Neighbor]]) -> dict[str, BoolArray]:
    """Return which neighbors (Q, K) agree with their queries, by one of `ALIKE`."""
    parts_QK, labels_QK = (
        np.array(
            [
                [getattr(neighbor.entry, name) == getattr(record, name) for neighbor in neighbors]
                for record, neighbors in zip(records, found, strict=True)
            ]
        )
        for name in ("body_part", "label")
    )
    return dict(zip(ALIKE, (parts_QK, labels_QK, parts_QK & labels_QK), strict=True))


def _second_opinion(
    studies: Sequence[Study], predictions: Sequence[StudyPrediction], gallery: Gallery
) -> tuple[float, float]:
    """Return `second_opinion` and `agreement` of `Retrieval`."""
    shares = np.array(
        [
            abnormal_share(_neighbors(gallery, prediction.embedding_D, study))
            for study, prediction in zip(studies, predictions, strict=True)
        ]
    )
    labels = np.array([prediction.label == "abnormal" for prediction in predictions])
    targets = np.array([study.target for study in studies])
    return auroc(targets, shares), float(((shares >= 0.5) == labels).mean())


def _precision(
    alike: dict[str, BoolArray],
    chosen_Q: BoolArray,
    records: Sequence[MuraRecord],
    entries: Sequence[GalleryEntry],
    resamples: int,
) -> Precision:
    queries = [record for record, chosen in zip(records, chosen_Q, strict=True) if chosen]
    patients = np.array([record.patient for record in queries])
    at = {
        depth: {
            name: mean_with_interval(like_QK[chosen_Q, :depth].mean(1), patients, resamples)
            for name, like_QK in alike.items()
        }
        for depth in DEPTHS
    }
    return Precision(len(queries), at, _chance(queries, entries))


def _chance(queries: Sequence[MuraRecord], entries: Sequence[GalleryEntry]) -> dict[str, float]:
    parts, labels = np.array([entry.body_part for entry in entries]), np.array([entry.label for entry in entries])
    shares = []
    for query in queries:
        part_N, label_N = parts == query.body_part, labels == query.label
        shares.append((part_N.mean(), label_N.mean(), (part_N & label_N).mean()))
    return dict(zip(ALIKE, map(float, np.mean(shares, axis=0)), strict=True))
