"""What one checkpoint has over another is what their AUROCs say, and nothing where they are the same."""

from pathlib import Path

import pytest
import torch

from tests.phantoms import write_dataset
from training.evaluate.compare import CompareOptions, compare
from xray.network.checkpoint import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven studies of each label: an odd number of pairs, of which no half can be in order."""
    return write_dataset(tmp_path_factory.mktemp("compare") / "Phantoms", studies=14)


def test_a_checkpoint_has_nothing_over_itself(tiny_checkpoint: Path, dataset: Path) -> None:
    found = compare(CompareOptions(tiny_checkpoint, tiny_checkpoint, dataset, device="cpu", resamples=20))
    assert found.auroc[0] == found.auroc[1]
    assert (found.gain.value, found.gain.low, found.gain.high) == (0, 0, 0)
    assert found.pointing == (None, None)


def test_a_network_that_says_the_opposite_gains_what_the_first_lacks(
    tiny_checkpoint: Path, dataset: Path, tmp_path: Path
) -> None:
    opposite = load_checkpoint(tiny_checkpoint)
    with torch.no_grad():
        for parameter in opposite.model.classifier.parameters():
            parameter.neg_()
    save_checkpoint(tmp_path / "opposite", opposite)
    found = compare(CompareOptions(tiny_checkpoint, tmp_path / "opposite", dataset, device="cpu", resamples=20))
    first, second = found.auroc
    assert first != 0.5
    assert second == pytest.approx(1 - first)
    assert found.gain.value == pytest.approx(second - first)
    assert found.gain.low <= found.gain.value <= found.gain.high
