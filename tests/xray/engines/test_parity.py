"""An engine is fit to serve when it differs from the reference in no respect by more than it may."""

from dataclasses import replace

import pytest
import torch

from xray.engines.parity import Comparison, Difference, difference, require_equal, require_fit
from xray.errors import ArtifactError
from xray.network.model import ModelOutput


def test_gate_refuses_an_engine_that_is_off_in_any_one_respect() -> None:
    generator = torch.Generator().manual_seed(0)
    cams = torch.randn((4, 3, 3), generator=generator)
    embeddings = torch.nn.functional.normalize(torch.randn((4, 8), generator=generator), dim=1)
    sound = ModelOutput(torch.zeros(4), embeddings, cams, torch.zeros(4))
    require_equal(difference(sound, sound), "float32")
    off = (
        {"logits_B": torch.tensor([0, 0, 0, 0.3])},
        {"embeddings_BD": embeddings.roll(1, 0)},
        {"cams_Bhw": -cams},
    )
    for changed in off:
        with pytest.raises(ArtifactError, match="not fit to serve"):
            require_equal(difference(sound, replace(sound, **changed)), "bfloat16")
    with pytest.raises(ArtifactError):
        require_equal(Difference(float("nan"), 1.0, 1.0), "bfloat16")


def test_map_of_one_cell_is_its_logit_and_correlates() -> None:
    output = ModelOutput(
        torch.zeros(2), torch.nn.functional.normalize(torch.ones((2, 8)), dim=1), torch.ones((2, 1, 1)), torch.zeros(2)
    )
    require_equal(difference(output, output), "float32")


def test_area_may_change_by_five_pairs_where_radiographs_are_few() -> None:
    same = Difference(0.0, 1.0, 1.0)
    few = Comparison("openvino-float32-cpu", 10, 5, same, same, 1.0, 20 / 25)
    require_fit(few, "float32")
    for changed in (replace(few, auroc=19 / 25), replace(few, images=1000), replace(few, auroc=float("nan"))):
        with pytest.raises(ArtifactError, match="AUROC"):
            require_fit(changed, "float32")
