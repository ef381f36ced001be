"""The average of networks has the mean of their weights, and nothing that was fitted to one of them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from training.export.model_soup import AverageOptions, average
from xray.errors import ArtifactError, InputError
from xray.network.checkpoint import Checkpoint, TrainingData, load_checkpoint, save_checkpoint
from xray.network.decision import Calibration

pytestmark = pytest.mark.slow


@pytest.fixture
def tuned(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """The tiny network with every number one higher and a calibration of its own."""
    checkpoint = load_checkpoint(tiny_checkpoint)
    for tensor in checkpoint.model.state_dict().values():
        tensor += 1
    save_checkpoint(tmp_path / "tuned", replace_manifest(checkpoint, calibration=Calibration(2.0, 1.0)))
    return tmp_path / "tuned"


def replace_manifest(checkpoint: Checkpoint, **changes: Any) -> Checkpoint:
    return replace(checkpoint, manifest=replace(checkpoint.manifest, **changes))


def test_one_named_twice_counts_twice(tiny_checkpoint: Path, tuned: Path, tmp_path: Path) -> None:
    manifest = average(AverageOptions((tuned, tiny_checkpoint, tuned), tmp_path / "average"))
    averaged = load_checkpoint(tmp_path / "average")
    assert averaged.manifest == manifest
    assert manifest.calibration == Calibration()
    before = load_checkpoint(tiny_checkpoint).model.state_dict()
    for name, tensor in averaged.model.state_dict().items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, before[name] + 2 / 3, msg=name)


@pytest.mark.parametrize(
    ("name", "value"), [("study_pooling", "lse"), ("training_data", TrainingData("something else", 1, 1, ""))]
)
def test_networks_that_are_not_alike_are_refused(
    tiny_checkpoint: Path, tmp_path: Path, name: str, value: object
) -> None:
    save_checkpoint(tmp_path / "other", replace_manifest(load_checkpoint(tiny_checkpoint), **{name: value}))
    with pytest.raises(ArtifactError, match=f"other has the {name}"):
        average(AverageOptions((tiny_checkpoint, tmp_path / "other"), tmp_path / "average"))
    assert not (tmp_path / "average").exists()


def test_one_checkpoint_is_no_average() -> None:
    with pytest.raises(InputError, match="--checkpoints"):
        AverageOptions((Path("checkpoint"),), Path("average"))
