"""The change of a head is fitted to logits that are those of the network with the change."""

import numpy as np
import pytest
import torch

from tests.phantoms import write_dataset
from training.dataset.radiographs import read_radiographs
from training.site.fit_head import linearize, with_change
from training.site.fit_weights import WeightChange
from training.site.site_data import SiteImages
from xray.engines.torch_engine import TorchEngine
from xray.images.preprocess import PreprocessSpec
from xray.mura.studies import read_mura, records_of
from xray.network.checkpoint import Checkpoint, CheckpointManifest, TrainingData
from xray.network.decision import StudyPooling
from xray.network.model import MapPooling, MapSpec, XrayNetwork
from xray.predictor import Predictor

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SiteImages:
    """Four studies, two of them with two radiographs."""
    studies = read_mura(write_dataset(tmp_path_factory.mktemp("fit_head") / "Site", studies=4), "valid")
    return SiteImages(studies, read_radiographs(records_of(studies)))


def network(map_pooling: MapPooling, study_pooling: StudyPooling) -> Checkpoint:
    torch.manual_seed(0)
    spec, map_spec = PreprocessSpec(size=64), MapSpec(32, map_pooling)
    manifest = CheckpointManifest(
        "densenet121", spec, TrainingData("nothing", 0, 0, ""), map_spec=map_spec, study_pooling=study_pooling
    )
    return Checkpoint(XrayNetwork("densenet121", spec, map_spec, study_pooling).eval(), manifest)


def served_logits(checkpoint: Checkpoint, site: SiteImages) -> np.ndarray:
    """Logits of the studies as the service computes them."""
    predictor, radiographs = Predictor(checkpoint.manifest, TorchEngine(checkpoint, CPU)), iter(site.radiographs)
    studies = [[next(radiographs) for _ in study.records] for study in site.studies]
    return np.array([predictor.predict(study).logit for study in studies])


@pytest.mark.parametrize("map_pooling", ["mean", "lse"])
@pytest.mark.parametrize("study_pooling", ["mean", "lse", "attention"])
def test_logits_of_a_small_change_are_those_of_the_changed_network(
    site: SiteImages, map_pooling: MapPooling, study_pooling: StudyPooling
) -> None:
    checkpoint = network(map_pooling, study_pooling)
    linear = linearize(checkpoint, site, CPU)
    assert linear.logits_N == pytest.approx(served_logits(checkpoint, site), abs=1e-4)
    change = WeightChange(np.random.default_rng(0).normal(0, 0.002, (linear.gradients_NC.shape[1],)), 0.01)
    changed = Checkpoint(with_change(checkpoint.model, change), checkpoint.manifest)
    moved = served_logits(changed, site) - linear.logits_N
    assert np.abs(moved).max() > 0.01
    assert change.logits(linear) - linear.logits_N == pytest.approx(moved, abs=0.02 * np.abs(moved).max())
    assert served_logits(checkpoint, site) == pytest.approx(linear.logits_N, abs=1e-4)
