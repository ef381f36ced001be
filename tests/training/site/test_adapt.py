"""An adapted checkpoint is served like any other, names the data that it was adapted to, and suits other patients."""

from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest

from app.inference.model_bundle import load_bundle
from app.settings import Settings
from index_builder.build import BuildOptions, build
from tests.phantoms import write_dataset
from training.site.adapt import AdaptOptions, adapt
from training.site.limits import SiteLimits
from training.site.validate_site import ValidateSiteOptions, validate_site
from xray.errors import ArtifactError, DatasetError, InputError
from xray.network.checkpoint import WEIGHTS, load_checkpoint, save_scope
from xray.network.embedding_space import EmbeddingSpace
from xray.network.ood import LimbClassifier

pytestmark = pytest.mark.slow

D = 1024
"""Numbers of an embedding of the tiny network."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with 120 studies to adapt to in `valid`, and as many to measure on in `train`."""
    return write_dataset(tmp_path_factory.mktemp("adapt") / "Site", studies=120)


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint to which the site's radiographs are unfamiliar and look like no limbs."""
    folder = copytree(tiny_checkpoint, tmp_path_factory.mktemp("before") / "checkpoint")
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(D, 4)))
    space = EmbeddingSpace(np.zeros(D, np.float32), basis.astype(np.float32), limit=0.1)
    save_scope(folder, space, LimbClassifier(np.full(D, 0.01, np.float32), bias=0.0, limit=0.5))
    return folder


@pytest.fixture(scope="module")
def adapted(checkpoint: Path, site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint with a head for the site; what the command printed is in `printed.txt` beside it."""
    out = tmp_path_factory.mktemp("after") / "adapted"
    with (out.parent / "printed.txt").open("w") as printed, redirect_stdout(printed):
        adapt(AdaptOptions(checkpoint, site, out, fine_tune="head", device="cpu"))
    return out


@pytest.fixture(scope="module")
def gallery(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = write_dataset(tmp_path_factory.mktemp("gallery") / "Phantoms", studies=20, seed=1)
    out = tmp_path_factory.mktemp("gallery") / "gallery"
    build(BuildOptions(tiny_checkpoint, data, out, device="cpu"))
    return out


def test_adapted_checkpoint_holds_on_other_patients_of_the_site(adapted: Path, site: Path, tmp_path: Path) -> None:
    limits = SiteLimits(min_auroc=0.85, min_sensitivity=0.7, max_calibration_error=0.2, min_in_scope=0.85)
    options = ValidateSiteOptions(adapted, site, split="train", out=tmp_path, limits=limits, device="cpu")
    report = validate_site(options)
    assert report.fit, report.reasons
    assert report.figures.figures["familiar"].value > 0.9
    assert (tmp_path / "index.html").read_text().count("data:image/svg+xml;base64,") == 4


def test_manifest_says_on_what_it_was_trained_and_to_what_it_was_adapted(
    adapted: Path, checkpoint: Path, site: Path
) -> None:
    before, after = load_checkpoint(checkpoint).manifest, load_checkpoint(adapted).manifest
    assert after.training_data == before.training_data
    assert after.adapted_on is not None
    assert (after.adapted_on.name, after.adapted_on.studies, after.adapted_on.images) == ("Site", 120, 160)
    assert after.id != before.id
    assert before.adapted_on is None


@pytest.mark.parametrize("name", ["Site", "Renamed"])
def test_images_that_were_used_to_adapt_are_refused_under_any_name(
    adapted: Path, site: Path, tmp_path: Path, name: str
) -> None:
    data = tmp_path / name
    hands = sorted((site / "valid" / "XR_HAND").iterdir())[:10]
    for number, folder in enumerate(hands):
        copytree(folder, data / "valid" / "XR_HAND" / f"patient{number}")
    with pytest.raises(DatasetError, match=r"adapted to (\d+) of these \1 images"):
        validate_site(ValidateSiteOptions(adapted, data, out=tmp_path / "out", device="cpu"))


def test_checkpoint_with_its_old_weights_is_served_with_its_old_gallery(
    adapted: Path, site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The head of the adapted checkpoint has skill at the site, that of the random one has none to calibrate.
    out = tmp_path / "again"
    manifest = adapt(AdaptOptions(adapted, site, out, split="train", device="cpu"))
    assert (out / WEIGHTS).read_bytes() == (adapted / WEIGHTS).read_bytes()
    assert manifest.id == load_checkpoint(adapted).manifest.id
    assert f"galleries of checkpoint {manifest.id} stay valid" in capsys.readouterr().out
    assert len(load_checkpoint(out).adapted_images) > len(load_checkpoint(adapted).adapted_images)
    rebuilt = tmp_path / "gallery"
    build(BuildOptions(adapted, site, rebuilt, device="cpu"))
    bundle = load_bundle(Settings(checkpoint=out, gallery=rebuilt, device="cpu", precision="float32"))
    assert bundle.predictor.manifest.thresholds == manifest.thresholds


def test_gallery_of_the_old_head_is_refused_and_the_command_says_to_build_another(adapted: Path, gallery: Path) -> None:
    assert "build the gallery again" in (adapted.parent / "printed.txt").read_text()
    with pytest.raises(ArtifactError, match="build"):
        load_bundle(Settings(checkpoint=adapted, gallery=gallery, device="cpu", precision="float32"))


def test_command_says_how_much_of_the_site_was_familiar_and_in_scope(adapted: Path) -> None:
    printed = (adapted.parent / "printed.txt").read_text()
    assert "familiarity: 0.0% of the site's radiographs were familiar; the space gets" in printed
    assert "refuses 160 of the site's 160 radiographs; its limit is raised from 0.500" in printed


def test_old_checkpoint_is_never_replaced(checkpoint: Path, site: Path) -> None:
    for out in (checkpoint, checkpoint / "new"):
        with pytest.raises(InputError, match="--out is the folder of --checkpoint"):
            AdaptOptions(checkpoint, site, out)


def test_too_few_studies_are_refused_before_anything_is_computed(checkpoint: Path, tmp_path: Path) -> None:
    few = write_dataset(tmp_path / "Few", studies=60)
    with pytest.raises(DatasetError, match="30 patients have normal studies in scope; collect at least 50"):
        adapt(AdaptOptions(checkpoint, few, tmp_path / "out", device="cpu"))
    assert not (tmp_path / "out").exists()


def test_network_is_trained_on_one_split_and_calibrated_on_the_other(
    adapted: Path,
    site: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A network of a few steps cannot pass the gate for the CPU's engine, so the gate is open here."""
    monkeypatch.setattr("training.fit.train.check_export", lambda folder, studies: None)
    out = tmp_path / "adapted"
    options = AdaptOptions(adapted, site, out, fine_tune="network", epochs=1, device="cpu")
    manifest = adapt(options)
    before, after = load_checkpoint(adapted), load_checkpoint(out)
    assert manifest == after.manifest
    assert manifest.id != before.manifest.id
    assert manifest.training_data == before.manifest.training_data
    assert manifest.adapted_on is not None
    assert manifest.adapted_on.studies == 240
    assert "add one with `training fit-scope --others`" in capsys.readouterr().out
    for split in ("train", "valid"):
        with pytest.raises(DatasetError, match="was adapted to"):
            validate_site(ValidateSiteOptions(out, site, split=split, out=tmp_path / "report", device="cpu"))


def test_network_needs_its_two_splits(checkpoint: Path, site: Path, tmp_path: Path) -> None:
    options = AdaptOptions(checkpoint, site, tmp_path / "out", fine_tune="network")
    with pytest.raises(InputError, match="leave --split out"):
        replace(options, split="train")
