"""The restructured network says what the network says, whatever its statistics and however odd its maps."""

import copy

import pytest
import torch
from torch import nn

from tests.conftest import STARTER
from xray.engines.fused_densenet import FusedDenseNet, fold_stem
from xray.engines.parity import difference, noise_canvases, require_equal
from xray.images.preprocess import PreprocessSpec
from xray.network.checkpoint import Checkpoint, load_checkpoint
from xray.network.model import MapSpec, ModelOutput, XrayNetwork

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def starter() -> Checkpoint:
    return load_checkpoint(STARTER / "checkpoint")


@pytest.fixture(scope="module")
def restless() -> XrayNetwork:
    """A DenseNet-121 none of whose batch norms is near the identity; some channels are turned over."""
    torch.manual_seed(0)
    model = XrayNetwork("densenet121", PreprocessSpec(size=64)).eval()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.get_buffer("running_mean"), std=0.3)
            nn.init.uniform_(norm.get_buffer("running_var"), 0.5, 2)
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias, std=0.3)
    return model


@torch.inference_mode()
def by_both(model: XrayNetwork, dtype: torch.dtype, size: int) -> tuple[ModelOutput, ModelOutput]:
    """The network's and the restructured network's outputs for the same canvases."""
    pixels = torch.from_numpy(noise_canvases(2, size))
    return model(pixels), FusedDenseNet(model, dtype)(pixels)


def require_same(expected: ModelOutput, found: ModelOutput) -> None:
    assert (expected.logits_B - found.logits_B).abs().max() < 1e-4
    assert torch.allclose(expected.embeddings_BD, found.embeddings_BD, atol=1e-5)
    assert torch.allclose(expected.cams_Bhw, found.cams_Bhw, atol=1e-4 * float(expected.cams_Bhw.abs().max()))


@pytest.mark.parametrize("size", [64, 100, 159], ids=lambda size: f"{size}px")
def test_restructured_network_equals_one_with_restless_statistics(restless: XrayNetwork, size: int) -> None:
    expected, found = by_both(restless, torch.float32, size)
    assert expected.logits_B.abs().min() > 1e-2, "logits near 0 would be equal whatever they say"
    require_same(expected, found)


def test_restructured_network_equals_one_with_a_finer_map(restless: XrayNetwork) -> None:
    fine = XrayNetwork("densenet121", PreprocessSpec(size=64), MapSpec(stride=16)).eval()
    fine.load_state_dict(restless.state_dict())
    expected, found = by_both(fine, torch.float32, 100)
    assert expected.cams_Bhw.shape == (2, 6, 6)
    require_same(expected, found)


def test_restructured_starter_equals_the_starter(starter: Checkpoint) -> None:
    require_same(*by_both(starter.model, torch.float32, starter.manifest.preprocess.size))


def test_restructured_starter_in_bfloat16_passes_the_gate_by_far(starter: Checkpoint) -> None:
    found = difference(*by_both(starter.model, torch.bfloat16, starter.manifest.preprocess.size))
    require_equal(found, "bfloat16")
    assert found.logit < 0.03, "the first convolution in half precision keeps it well within the limit of 0.15"


def test_equality_notices_one_wrong_statistic(restless: XrayNetwork) -> None:
    pixels = torch.from_numpy(noise_canvases(2, 64))
    wrong = copy.deepcopy(restless)
    wrong.get_buffer("features.denseblock3.denselayer9.norm2.running_mean")[5] += 1
    with torch.inference_mode(), pytest.raises(AssertionError):
        require_same(restless(pixels), FusedDenseNet(wrong, torch.float32)(pixels))


@torch.inference_mode()
def test_first_convolution_of_one_channel_equals_that_of_three_equal_ones_at_the_border_too(
    restless: XrayNetwork,
) -> None:
    gray = restless.normalize(torch.from_numpy(noise_canvases(2, 64)))
    conv, norm = (restless.features.get_submodule(name) for name in ("conv0", "norm0"))
    expected = norm(conv(gray.expand(-1, 3, -1, -1)))
    weight, bias = fold_stem(restless.features, torch.float32)
    found = nn.functional.conv2d(gray, weight, stride=2, padding=3) + bias
    assert torch.allclose(found, expected, atol=1e-4)


@torch.inference_mode()
def test_normalization_cannot_be_folded_into_the_first_convolution(restless: XrayNetwork) -> None:
    """Why it is a step of its own: padding zeros stand for the mean gray level, which no pixel has."""
    pixels = torch.from_numpy(noise_canvases(1, 64)).float()
    weight, _ = fold_stem(restless.features, torch.float32)
    expected = nn.functional.conv2d(restless.normalize(pixels), weight, stride=2, padding=3)
    shift = (weight.sum((1, 2, 3)) * restless.mean / restless.std)[:, None, None]
    folded = nn.functional.conv2d(pixels, weight / restless.std, stride=2, padding=3) - shift
    assert torch.allclose(folded[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], atol=1e-3)
    assert (folded - expected).abs().max() > 0.1


def test_model_stays_as_it_was(restless: XrayNetwork) -> None:
    before = copy.deepcopy(restless.state_dict())
    by_both(restless, torch.bfloat16, 64)
    assert all(torch.equal(before[name], tensor) for name, tensor in restless.state_dict().items())
