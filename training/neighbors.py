"""Predictions and a gallery in, how alike the neighbors are to their queries out.

Legend: Q queries, K neighbors of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.metrics import Interval, auroc, mean_with_interval
from xray.errors import InputError
from xray.gallery import Gallery, Wanted
from xray.gallery_files import GalleryEntry
from xray.mura import MuraRecord, Study, records_of
from xray.predictor import StudyPrediction

DEPTHS = (1, 5, 10)
BoolArray = npt.NDArray[np.bool_]
ALIKE = ("body part", "label", "both")


@dataclass(frozen=True)
class Precision:
    """Share of neighbors that are like their query, for one group of queries.

    Attributes:
        at: by depth, then by what is alike.
        chance: by what is alike, for a neighbor drawn at random.
    """

    queries: int
    at: dict[int, dict[str, Interval]]
    chance: dict[str, float]


@dataclass(frozen=True)
class Retrieval:
    """How good neighbors are, and what their labels are worth as a second opinion.

    Attributes:
        groups: of all queries, and of the abnormal ones.
        second_opinion: AUROC over studies of the share of abnormal ones among a study's neighbors.
        agreement: share of studies on which that share, called at one half, and the network's label agree.
    """

    groups: dict[str, Precision]
    second_opinion: float
    agreement: float


def retrieval(
    studies: Sequence[Study], predictions: Sequence[StudyPrediction], gallery: Gallery, resamples: int
) -> Retrieval:
    """Ask for the neighbors of each radiograph; those of its own study do not count.

    Raises:
        InputError: the gallery is too small for that.
    """
    records = records_of(studies)
    radiographs = [each for prediction in predictions for each in prediction.radiographs]
    found = [
        _neighbors(gallery, each.embedding_D, study.key)
        for study, prediction in zip(studies, predictions, strict=True)
        for each in prediction.radiographs
    ]
    assert len(found) == len(records) == len(radiographs)
    parts_QK, labels_QK = (
        np.array(
            [
                [getattr(entry, name) == getattr(record, name) for entry in entries]
                for record, entries in zip(records, found, strict=True)
            ]
        )
        for name in ("body_part", "label")
    )
    alike = dict(zip(ALIKE, (parts_QK, labels_QK, parts_QK & labels_QK), strict=True))
    abnormal_Q = np.array([record.target == 1 for record in records])
    groups = {"all": np.ones(len(records), bool), "abnormal": abnormal_Q}
    shares = np.array(
        [abnormal_share(_neighbors(gallery, p.embedding_D, s.key)) for s, p in zip(studies, predictions, strict=True)]
    )
    labels = np.array([prediction.label == "abnormal" for prediction in predictions])
    return Retrieval(
        {
            name: _precision(alike, chosen_Q, records, gallery.entries, resamples)
            for name, chosen_Q in groups.items()
            if chosen_Q.any()
        },
        auroc(np.array([study.target for study in studies]), shares),
        float(((shares >= 0.5) == labels).mean()),
    )


def abnormal_share(entries: Sequence[GalleryEntry]) -> float:
    return sum(entry.label == "abnormal" for entry in entries) / len(entries)


def _neighbors(gallery: Gallery, embedding_D: npt.NDArray[np.float32], study: str) -> list[GalleryEntry]:
    wanted = Wanted(k=max(DEPTHS), exclude_study=study)
    found = [neighbor.entry for neighbor in gallery.search(embedding_D, wanted)]
    if len(found) < wanted.k:
        raise InputError(f"The gallery has {len(found)} entries beside those of {study}; measure one of more.")
    return found


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
