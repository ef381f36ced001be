"""Precision and chance are what can be counted by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.evaluate.retrieval_metrics import measure_retrieval
from xray.errors import InputError
from xray.gallery.entries import GalleryEntry
from xray.gallery.faiss_index import FaissIndex
from xray.gallery.gallery import Gallery, GalleryManifest
from xray.images.preprocess import Placement
from xray.images.radiograph import Box, Radiograph
from xray.mura.studies import MuraRecord, Study
from xray.predictor import Prediction, Prepared, StudyPrediction
from xray.types import Label

D = 16
KINDS = [("XR_HAND", 0), ("XR_HAND", 1), ("XR_LEG", 0)]
"""Of the queries; entries of each kind lie around an axis of their own."""


def near(axis: int, seed: int) -> np.ndarray:
    vector = np.eye(D)[axis] + 0.05 * np.random.default_rng(seed).normal(size=D)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def gallery_of(kinds: list[tuple[str, int]], axes: list[int]) -> Gallery:
    entries = tuple(
        GalleryEntry(f"image{n}.png", part, f"patient{n}", "study1", ("normal", "abnormal")[target])
        for n, (part, target) in enumerate(kinds)
    )
    vectors = np.stack([near(axis, seed) for seed, axis in enumerate(axes)])
    manifest = GalleryManifest("", "Drawn", "train", "all", D, len(entries))
    return Gallery(manifest, entries, FaissIndex(vectors))


def query(number: int, part: str, target: int, axis: int) -> tuple[Study, StudyPrediction]:
    record = MuraRecord(f"query{number}.png", Path(), part, f"stranger{number}", "study1", target)
    prepared = Prepared(
        Radiograph(np.zeros((9, 9), np.uint8)),
        np.zeros((1, 9, 9), np.uint8),
        Placement((9, 9), Box(0, 0, 9, 9), (9, 9), 0, 0, 9),
    )
    embedding = near(axis, 1000 + number)
    one = Prediction(prepared, 0.0, 0.0, 0.5, embedding, np.zeros((1, 1), np.float32))
    label: Label = "abnormal" if target else "normal"
    return Study((record,)), StudyPrediction(0.0, 0.5, label, label, None, None, 0.5, (1.0,), embedding, (one,))


def test_neighbors_of_their_own_kind_make_a_precision_of_one() -> None:
    gallery = gallery_of(KINDS * 10, [0, 1, 2] * 10)
    studies, predictions = zip(*(query(n, *KINDS[n % 3], axis=n % 3) for n in range(9)), strict=True)
    found = measure_retrieval(studies, predictions, gallery, resamples=20)
    assert found.groups["all"].at[10]["both"].value == 1
    assert found.groups["abnormal"].queries == 3
    assert (found.second_opinion, found.agreement) == (1.0, 1.0)


def test_each_kind_of_likeness_and_its_chance_are_counted() -> None:
    # Around the query's axis lie six of the other label and four of the other part.
    gallery = gallery_of([("XR_HAND", 1)] * 6 + [("XR_LEG", 0)] * 4 + [("XR_HAND", 0)] * 30, [0] * 10 + [1] * 30)
    study, prediction = query(0, "XR_HAND", 0, axis=0)
    precision = measure_retrieval([study], [prediction], gallery, resamples=20).groups["all"]
    values = {what: interval.value for what, interval in precision.at[10].items()}
    assert values == pytest.approx({"body part": 0.6, "label": 0.4, "both": 0.0})
    assert precision.chance == pytest.approx({"body part": 36 / 40, "label": 34 / 40, "both": 30 / 40})


def test_a_querys_own_study_does_not_count() -> None:
    gallery = gallery_of(KINDS * 10, [0, 1, 2] * 10)
    study, prediction = query(0, "XR_HAND", 0, axis=0)
    own = Study((replace(study.records[0], patient="patient0"),))
    with_own, without = (measure_retrieval([each], [prediction], gallery, 20).groups["all"] for each in (study, own))
    assert with_own.at[10]["both"].value == 1
    assert without.at[10]["both"].value == pytest.approx(0.9)


def test_gallery_too_small_to_measure_is_refused() -> None:
    study, prediction = query(0, "XR_HAND", 0, axis=0)
    with pytest.raises(InputError, match="The gallery has 3 entries beside"):
        measure_retrieval([study], [prediction], gallery_of(KINDS, [0, 1, 2]), resamples=20)
