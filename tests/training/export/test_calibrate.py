"""Calibrating changes what is said of a logit, and nothing else."""

from pathlib import Path
from shutil import copytree

import pytest

from tests.phantoms import write_dataset
from training.export.calibrate import CalibrateOptions, calibrate
from xray.errors import DatasetError, InputError
from xray.network.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("calibrate") / "Phantoms", studies=40)


def test_calibrated_checkpoint_keeps_its_weights_and_says_how_it_decides(
    tiny_checkpoint: Path, dataset: Path, tmp_path: Path
) -> None:
    folder = copytree(tiny_checkpoint, tmp_path / "checkpoint")
    before = load_checkpoint(folder).manifest
    calibrate(CalibrateOptions(folder, dataset, error_rate=0.2))
    after = load_checkpoint(folder).manifest
    assert (after.id, after.checksums) == (before.id, before.checksums)
    assert set(after.thresholds) == {"default", "youden", "sensitive"}
    assert after.thresholds["sensitive"] <= after.thresholds["youden"]
    assert after.uncertainty is not None
    assert after.uncertainty.error_rate == 0.2


def test_studies_of_one_class_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    one_class = write_dataset(tmp_path / "Phantoms", studies=1)
    with pytest.raises(DatasetError, match="of one class"):
        calibrate(CalibrateOptions(tiny_checkpoint, one_class))


@pytest.mark.parametrize("rate", [0.0, 0.5, -1.0])
def test_error_rates_that_promise_nothing_are_refused(rate: float) -> None:
    with pytest.raises(InputError, match="--error-rate"):
        CalibrateOptions(Path("checkpoint"), Path("data"), error_rate=rate)
