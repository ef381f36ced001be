"""A network of the original project says the same after it has been brought in."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from training.export.import_original import ImportOptions, import_original
from xray.errors import ArtifactError, InputError
from xray.images.preprocess import IMAGENET_MEAN, IMAGENET_STD
from xray.network.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow

NEW_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))([12])\.")


@pytest.fixture(scope="module")
def original() -> nn.Module:
    """DenseNet-121 with the outputs normal and abnormal, and batch norms that are no identities."""
    torch.manual_seed(1)
    network: nn.Module = torchvision.models.densenet121(weights=None, num_classes=2)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean = torch.randn_like(layer.get_buffer("running_mean")) * 0.1
            layer.running_var = torch.rand_like(layer.get_buffer("running_var")) + 0.5
    return network.eval()


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randint(0, 256, (3, 1, 64, 64), generator=torch.Generator().manual_seed(2), dtype=torch.uint8)


def old_names(network: nn.Module, prefix: str = "module.") -> dict[str, Tensor]:
    """As torchvision and torch named them in 2018: `norm.1`, no step counters."""
    state = network.state_dict().items()
    return {prefix + NEW_LAYER.sub(r"\1.\2.", name): t for name, t in state if "num_batches" not in name}


def brought_in(content: object, folder: Path) -> Path:
    torch.save(content, folder / "model_best.pth.tar")
    options = ImportOptions(folder / "model_best.pth.tar", folder / "checkpoint", "densenet121", 64)
    import_original(options)
    return options.out


@torch.inference_mode()
def test_the_logit_is_the_difference_of_the_originals_two(original: nn.Module, pixels: Tensor, tmp_path: Path) -> None:
    content = {"epoch": 7, "arch": "densenet121", "state_dict": old_names(original), "optimizer": {"state": {}}}
    network = load_checkpoint(brought_in(content, tmp_path)).model
    normal, abnormal = original((pixels.float() / 255 - IMAGENET_MEAN).div(IMAGENET_STD).expand(-1, 3, -1, -1)).T
    logits = network(pixels).logits_B
    torch.testing.assert_close(logits, abnormal - normal, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.sigmoid(logits), F.softmax(torch.stack([normal, abnormal]), 0)[1])


@torch.inference_mode()
@pytest.mark.parametrize("prefix", ["", "module.densenet121."])
def test_a_bare_state_dict_with_one_logit_comes_in(
    prefix: str, original: nn.Module, pixels: Tensor, tmp_path: Path
) -> None:
    content = old_names(original, prefix)
    for name in (f"{prefix}classifier.weight", f"{prefix}classifier.bias"):
        content[name] = content[name][1:]
    abnormal = original((pixels.float() / 255 - IMAGENET_MEAN).div(IMAGENET_STD).expand(-1, 3, -1, -1))[:, 1]
    network = load_checkpoint(brought_in(content, tmp_path)).model
    torch.testing.assert_close(network(pixels).logits_B, abnormal, rtol=1e-4, atol=1e-5)


def test_a_best_metric_from_numpy_does_not_stand_in_the_way(original: nn.Module, tmp_path: Path) -> None:
    content = {"best": np.float64(0.83), "state_dict": old_names(original)}
    assert load_checkpoint(brought_in(content, tmp_path)).manifest.architecture == "densenet121"


def test_missing_and_unknown_weights_are_named(original: nn.Module, tmp_path: Path) -> None:
    content = old_names(original)
    del content["module.features.conv0.weight"]
    content["module.attention.weight"] = torch.zeros(2, 3)
    with pytest.raises(ArtifactError, match=r"missing.*features\.conv0\.weight.*unknown.*attention\.weight"):
        brought_in(content, tmp_path)
    assert not (tmp_path / "checkpoint").exists()


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="densenet121"):
        brought_in(old_names(torchvision.models.densenet169(weights=None, num_classes=1)), tmp_path)


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.zeros(2)], nn.Linear(2, 1)], ids=["empty", "list", "objects"])
def test_a_file_without_a_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"model_best\.pth\.tar"):
        brought_in(content, tmp_path)


@pytest.mark.parametrize("data", [b"", b"no torch file", b"PK\x03\x04 torn"])
def test_a_file_that_torch_did_not_write_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(ArtifactError, match=r"x\.tar"):
        import_original(ImportOptions(tmp_path / "x.tar", tmp_path / "checkpoint", "densenet121", 64))


def test_size_out_of_range_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--size is 5; give 32"):
        ImportOptions(tmp_path / "x.tar", tmp_path / "checkpoint", size=5)
