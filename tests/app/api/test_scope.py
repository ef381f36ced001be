"""An image that is no radiograph of a limb is refused or flagged, unless the operator disables the check."""

from http import HTTPStatus
from pathlib import Path
from shutil import copytree

import httpx
import numpy as np
import pytest

from app.replica import Replica, load_replica
from tests.app.conftest import png, serving
from tests.phantoms import draw_phantom
from xray.network.checkpoint import load_checkpoint, save_scope
from xray.network.embedding_space import EmbeddingSpace

pytestmark = pytest.mark.slow

VIVID = np.repeat(draw_phantom(0)[..., np.newaxis], 3, axis=2)
VIVID[..., 0] = 255 - VIVID[..., 0]
COLOURED = png(VIVID)


def post(client: httpx.Client, path: str, *images: bytes) -> httpx.Response:
    return client.post(path, files=[("file", (f"image{number}.png", image)) for number, image in enumerate(images)])


@pytest.mark.parametrize("path", ["/classify", "/cam", "/retrieve", "/analyze"])
def test_image_out_of_scope_is_refused_everywhere_and_the_next_request_is_fine(
    service: Replica, path: str, radiograph: bytes
) -> None:
    settings = service.settings.model_copy(update={"scope": "refuse"})
    with serving(load_replica(settings)) as client:
        refused = post(client, path, COLOURED)
        assert refused.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
        assert refused.json()["type"] == "urn:osteon:error:OutOfScopeError"
        assert refused.json()["detail"].startswith("Radiograph 1 of 1 is in color, unlike radiographs; send")
        assert client.get("/health/ready").status_code == HTTPStatus.OK


def test_flagged_image_is_answered_with_its_reason_and_one_view_is_enough(service: Replica, radiograph: bytes) -> None:
    settings = service.settings.model_copy(update={"scope": "flag"})
    with serving(load_replica(settings)) as client:
        reply = post(client, "/classify", radiograph, COLOURED).json()
        assert (reply["in_scope"], reply["scope_reason"]) == (False, "in colour")
        assert reply["scope_distance"] > 1
        assert 0 <= reply["probability"] <= 1


def test_nobody_asks_where_the_scope_is_off(client: httpx.Client) -> None:
    reply = post(client, "/classify", COLOURED).json()
    assert (reply["in_scope"], reply["scope_distance"], reply["scope_reason"]) == (None, None, None)


def test_unfamiliar_limb_is_answered_as_uncertain_with_the_reason_and_no_word_of_scope(
    service: Replica, radiograph: bytes, tmp_path: Path
) -> None:
    checkpoint = copytree(service.settings.checkpoint, tmp_path / "checkpoint")
    dimension = load_checkpoint(checkpoint).model.backbone.channels
    save_scope(checkpoint, EmbeddingSpace(np.zeros(dimension, np.float32), np.zeros((dimension, 1), np.float32), 0.5))
    settings = service.settings.model_copy(update={"scope": "refuse", "checkpoint": checkpoint})
    with serving(load_replica(settings)) as client:
        reply = post(client, "/classify", radiograph).json()
        assert (reply["in_scope"], reply["familiar"], reply["decision"]) == (True, False, "uncertain")
        assert reply["familiarity"] == pytest.approx(0.5, abs=1e-3)  # an embedding has length 1
        assert "unlike those that the network was trained on" in reply["decision_reason"]
        assert [each["familiarity"] for each in reply["radiographs"]] == [reply["familiarity"]]
        about = client.get("/info").json()
        assert (about["tells_limbs"], about["tells_familiar"]) == (False, True)
        assert (about["training_data"], about["adapted_on"]) == ("nothing", None)
