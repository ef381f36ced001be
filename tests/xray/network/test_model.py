"""One pass: the map, the embedding and the logit are the same evidence."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import STARTER
from tests.phantoms import draw_phantom
from xray.engines.torch_engine import TorchEngine
from xray.images.decoding.decode import read_radiograph
from xray.images.preprocess import preprocess
from xray.images.radiograph import Radiograph
from xray.network.checkpoint import load_checkpoint
from xray.network.model import MapPooling, pool


def assert_map_explains_the_logit(checkpoint: Path, radiographs: list[Radiograph]) -> None:
    loaded = load_checkpoint(checkpoint)
    batch = np.stack([preprocess(radiograph, loaded.manifest.preprocess)[0] for radiograph in radiographs])
    output = TorchEngine(loaded, torch.device("cpu")).forward(batch)
    bias = loaded.model.classifier.bias.detach()
    assert torch.allclose(pool(output.cams_Bhw, loaded.manifest.map_spec.pooling) + bias, output.logits_B, atol=1e-4)
    assert torch.allclose(output.embeddings_BD.norm(dim=1), torch.ones(len(batch)), atol=1e-5)


def test_pooled_map_plus_bias_is_the_logit_of_the_starter() -> None:
    assert_map_explains_the_logit(
        STARTER / "checkpoint", [Radiograph(draw_phantom(seed, fracture=seed > 1)) for seed in range(4)]
    )


def test_pooled_map_plus_bias_is_the_logit_on_real_radiographs(fracatlas: Path) -> None:
    files = sorted((fracatlas / "valid").rglob("*.jpg"))[::60]
    assert_map_explains_the_logit(STARTER / "checkpoint", [read_radiograph(file) for file in files])


def test_neighbours_in_the_batch_do_not_change_a_row(tiny_checkpoint: Path) -> None:
    engine = TorchEngine(load_checkpoint(tiny_checkpoint), torch.device("cpu"))
    batch = np.random.default_rng(0).integers(0, 256, (5, 1, 64, 64), np.uint8)
    together, alone = engine.forward(batch), engine.forward(batch[3:4])
    assert float(together.logits_B[3]) == pytest.approx(float(alone.logits_B[0]), abs=1e-5)
    assert torch.allclose(together.cams_Bhw[3], alone.cams_Bhw[0], atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "lse"])
def test_an_even_map_pools_to_its_cells(pooling: MapPooling) -> None:
    assert pool(torch.full((2, 3, 4), -1.5), pooling).tolist() == pytest.approx([-1.5, -1.5])


def test_pooled_odds_are_the_mean_of_the_cells_odds() -> None:
    cams = torch.tensor([[[0.0, 1.0], [-2.0, 90.0]]], dtype=torch.float64)
    torch.testing.assert_close(pool(cams, "lse").exp(), cams.exp().mean((1, 2)))


def test_map_changes_when_the_weights_are_random(fracatlas: Path) -> None:
    """A map that survives would show the radiograph and not what the network sees in it (Adebayo et al. 2018)."""
    trained = load_checkpoint(STARTER / "checkpoint")
    files = sorted((fracatlas / "valid").rglob("*_positive/*.jpg"))[::20]
    spec = trained.manifest.preprocess
    batch = np.stack([preprocess(read_radiograph(file), spec)[0] for file in files])
    maps = TorchEngine(trained, torch.device("cpu")).forward(batch).cams_Bhw.flatten(1).numpy()
    torch.manual_seed(0)
    untrained = load_checkpoint(STARTER / "checkpoint")
    for name in ("denseblock4", "norm5"):
        for module in untrained.model.features.get_submodule(name).modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.BatchNorm2d):
                module.reset_parameters()
    untrained.model.classifier.reset_parameters()
    random_maps = TorchEngine(untrained, torch.device("cpu")).forward(batch).cams_Bhw.flatten(1).numpy()
    correlations = [np.corrcoef(*pair)[0, 1] for pair in zip(maps, random_maps, strict=True)]
    assert abs(float(np.mean(correlations))) < 0.5
