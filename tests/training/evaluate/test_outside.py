"""What is answered to studies of another source is counted by hand, and each is found by its name."""

import csv
import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.phantoms import draw_phantom
from tests.training.evaluate.fake_engine import SIZE, fake_predictor
from training.evaluate.outside import (
    OutsideSet,
    cases_table,
    measure_outside,
    outside_table,
    read_outside,
    write_outside,
)
from xray.errors import DatasetError
from xray.gallery.entries import GalleryEntry
from xray.gallery.faiss_index import FaissIndex
from xray.gallery.gallery import Gallery, GalleryManifest
from xray.images.radiograph import PixelArray
from xray.network.decision import UncertaintyBand
from xray.network.ood import LimbClassifier
from xray.predictor import Predictor

STUDIES = {"XR_KNEE/patient1": "negative", "XR_KNEE/patient2": "positive", "XR_WRIST/patient3": "negative"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two normal studies and an abnormal one; the first has a second radiograph."""
    root = tmp_path_factory.mktemp("outside") / "Elsewhere"
    for number, (patient, label) in enumerate(STUDIES.items()):
        study = root / "valid" / patient / f"study1_{label}"
        study.mkdir(parents=True)
        for view in range(2 if number == 0 else 1):
            cv2.imwrite(str(study / f"image{view + 1}.png"), draw_phantom(10 * number + view, height=SIZE, width=SIZE))
    return root


def measure(folder: Path, predictor: Predictor, gallery: Gallery | None = None, members: int = 1) -> OutsideSet:
    (split,) = read_outside([folder])
    return measure_outside(split, [predictor] * members, gallery, resamples=20)


def always_abnormal(canvas: PixelArray) -> float:
    return 3.0


def test_studies_and_false_alarms_are_counted(folder: Path) -> None:
    found = measure(folder, fake_predictor(always_abnormal))
    assert (found.name, found.studies, found.abnormal) == ("Elsewhere/valid", 3, 1)
    assert (found.false_alarms, found.let_in, found.uncertain) == (1.0, 1.0, 0.0)
    assert found.auroc.value == 0.5
    assert [case.name for case in found.cases] == [f"{patient}/study1" for patient in STUDIES]
    assert [case.label for case in found.cases] == ["normal", "abnormal", "normal"]


@pytest.mark.parametrize("members", [1, 2])
def test_unfamiliar_studies_are_never_decided(folder: Path, members: int) -> None:
    found = measure(folder, fake_predictor(always_abnormal, familiarity=0.5), members=members)
    assert (found.familiar, found.uncertain, found.decided_unfamiliar) == (0.0, 1.0, 0)
    assert {(case.decision, case.familiarity) for case in found.cases} == {("uncertain", 0.5)}
    found = measure(folder, fake_predictor(always_abnormal, familiarity=2.0), members=members)
    assert (found.familiar, found.uncertain) == (1.0, 0.0)


def test_decisions_are_those_of_the_uncertainty_band(folder: Path) -> None:
    predictor = fake_predictor(always_abnormal)
    manifest = dataclasses.replace(predictor.manifest, uncertainty=UncertaintyBand(0.1, 0.0, 1.0))
    assert measure(folder, dataclasses.replace(predictor, manifest=manifest)).uncertain == 1.0


def test_study_is_let_in_only_with_all_its_radiographs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_limb = LimbClassifier(10 * np.eye(16, dtype=np.float32)[0], 0.0, limit=0.5)
    found = measure(folder, dataclasses.replace(fake_predictor(always_abnormal), limb_classifier=no_limb))
    assert found.let_in == 0.0
    scopes = iter([1, -1, 1, 1])  # the second radiograph of the first study is no limb
    monkeypatch.setattr(LimbClassifier, "distance", lambda *_: 0.5 if next(scopes) > 0 else 1.5)
    found = measure(folder, dataclasses.replace(fake_predictor(always_abnormal), limb_classifier=no_limb))
    assert [case.in_scope for case in found.cases] == [False, True, True]


def test_neighbors_count_if_they_show_the_region_of_their_query(folder: Path) -> None:
    near = ["XR_LEG", "XR_LEG", "XR_FOOT", "XR_MIXED", "XR_HAND"]
    parts = [*near, *["XR_HIP"] * 5]
    entries = tuple(GalleryEntry(f"{n}.png", part, f"p{n}", "study1", "normal") for n, part in enumerate(parts))
    vectors = np.repeat(np.eye(16, dtype=np.float32)[:2], 5, axis=0)  # hips are at right angles to every query
    gallery = Gallery(GalleryManifest("", "Drawn", "train", "all", 16, 10), entries, FaissIndex(vectors))
    found = measure(folder, fake_predictor(always_abnormal), gallery)
    # Three radiographs of knees, near which three of five show a leg or foot, and one wrist, near one hand.
    assert found.same_region == pytest.approx((3 * 3 / 5 + 1 / 5) / 4)
    assert found.same_region_by_chance == pytest.approx((3 * 3 / 10 + 1 / 10) / 4)


def test_what_is_not_defined_is_nan(folder: Path, tmp_path: Path) -> None:
    normal = tmp_path / "valid/XR_HAND/patient1/study1_negative"
    normal.mkdir(parents=True)
    cv2.imwrite(str(normal / "image1.png"), draw_phantom(1))
    found = measure(tmp_path, fake_predictor(always_abnormal))
    assert np.isnan([found.auroc.value, found.familiar, found.same_region]).all()


def test_table_lists_every_study_by_name(folder: Path, tmp_path: Path) -> None:
    found = measure(folder, fake_predictor(always_abnormal, familiarity=0.5))
    write_outside(tmp_path, [found])
    with (tmp_path / "outside.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["study"] for row in rows] == [case.name for case in found.cases]
    assert rows[1] == {
        "set": "Elsewhere/valid",
        "study": "XR_KNEE/patient2/study1",
        "label": "abnormal",
        "probability": str(found.cases[1].probability),
        "decision": "uncertain",
        "in_scope": "True",
        "familiarity": "0.5",
    }
    assert len(outside_table([found])) == 2
    assert len(cases_table(found)) == 4


def test_folder_without_valid_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="give the folder that holds 'valid'"):
        read_outside([tmp_path])
