"""Our DenseNet is torchvision's: the same names, the same maps, fresh weights of the same spread."""

import pytest
import torch
import torchvision

from xray.network.backbones.densenet import LAYERS, DenseBlock, DenseNet, DenseNetName


@pytest.mark.parametrize("architecture", LAYERS)
def test_layers_are_torchvisions_by_name_and_result(architecture: DenseNetName) -> None:
    torch.manual_seed(3)
    theirs = torchvision.models.get_model(architecture, weights=None).features
    torch.manual_seed(3)
    ours = DenseNet(architecture).build()
    expected, found = theirs.state_dict(), ours.state_dict()
    assert [(name, tensor.shape) for name, tensor in found.items()] == [(n, t.shape) for n, t in expected.items()]
    ours.load_state_dict(expected)
    pixels = torch.randn((2, 3, 64, 64))
    for network in (theirs, ours):
        network.train()
    assert torch.equal(ours(pixels), theirs(pixels).relu())
    maps = ours.eval()(pixels)
    assert torch.equal(maps, theirs.eval()(pixels).relu())
    assert maps.shape[1] == DenseNet(architecture).channels


def test_fresh_weights_spread_as_torchvisions() -> None:
    theirs = torchvision.models.densenet121(weights=None).features.state_dict()
    ours = DenseNet("densenet121").build().state_dict()
    for name in ("conv0.weight", "denseblock3.denselayer9.conv2.weight", "transition2.conv.weight"):
        assert float(ours[name].std()) == pytest.approx(float(theirs[name].std()), rel=0.05)


def test_finer_maps_last_block_sees_on_every_second_cell_what_the_plain_one_sees() -> None:
    torch.manual_seed(3)
    plain, dilated = DenseBlock(4, 64).eval(), DenseBlock(4, 64, dilation=2).eval()
    dilated.load_state_dict(plain.state_dict())
    maps = torch.randn((2, 64, 10, 10))
    assert torch.allclose(dilated(maps)[..., ::2, ::2], plain(maps[..., ::2, ::2]), atol=1e-5)


def test_map_of_stride_16_has_four_times_the_cells_from_the_same_weights() -> None:
    coarse, fine = DenseNet("densenet121").build(), DenseNet("densenet121").build(stride=16)
    fine.load_state_dict(coarse.state_dict())
    pixels = torch.randn((1, 3, 96, 96))
    assert coarse(pixels).shape == (1, 1024, 3, 3)
    assert fine(pixels).shape == (1, 1024, 6, 6)
