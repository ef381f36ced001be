"""A new checkpoint and gallery take over without a lost or wrong answer, or not at all."""

import os
import signal
import threading
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from shutil import copytree, rmtree

import httpx
import pytest
import torch
from pydantic import SecretStr

from app.replica import Replica, load_replica
from app.settings import Settings
from index_builder.build import BuildOptions, build
from tests.app.conftest import metric, png, serving
from tests.app.runtime.test_shutdown import free_port, process
from tests.phantoms import draw_phantom
from tests.waiting import HUNG_SECONDS, wait_until
from xray.artifact import replace_folder
from xray.network.checkpoint import Checkpoint, CheckpointManifest, TrainingData, load_checkpoint, save_checkpoint
from xray.network.model import XrayNetwork

pytestmark = pytest.mark.slow

PHANTOMS = [png(draw_phantom(seed=seed)) for seed in range(30, 36)]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory, settings: Settings, dataset: Path) -> list[Path]:
    """Two folders, each with a checkpoint and its gallery."""
    root = tmp_path_factory.mktemp("pairs")
    spec = load_checkpoint(settings.checkpoint).manifest.preprocess
    torch.manual_seed(1)
    manifest = CheckpointManifest("densenet121", spec, TrainingData("nothing", 0, 0, ""))
    save_checkpoint(root / "b" / "checkpoint", Checkpoint(XrayNetwork("densenet121", spec), manifest))
    build(BuildOptions(root / "b" / "checkpoint", dataset, root / "b" / "gallery", device="cpu"))
    copytree(settings.checkpoint, root / "a" / "checkpoint")
    copytree(settings.gallery, root / "a" / "gallery")
    return [root / "a", root / "b"]


def install(pair: Path, place: Path) -> None:
    """Put a pair where a service looks for it, as a deployment would."""
    for name in ("checkpoint", "gallery"):
        copytree(pair / name, place / f"{name}.new")
        replace_folder(place / f"{name}.new", place / name)


@pytest.fixture
def place(tmp_path: Path, pairs: list[Path]) -> Path:
    install(pairs[0], tmp_path)
    return tmp_path


def settings_of(place: Path, settings: Settings, **changed: object) -> Settings:
    folders = {"checkpoint": place / "checkpoint", "gallery": place / "gallery"}
    return settings.model_copy(update={**folders, "result_cache_mib": 0, **changed})


def answers_of(pair: Path, settings: Settings) -> dict[bytes, float]:
    with serving(load_replica(settings_of(pair, settings))) as client:
        return {body: client.post("/classify", files={"file": body}).json()["probability"] for body in PHANTOMS}


def test_requests_under_reloads_are_all_answered_by_one_pair_or_the_other(
    settings: Settings, pairs: list[Path], place: Path
) -> None:
    known = {load_checkpoint(pair / "checkpoint").manifest.id: answers_of(pair, settings) for pair in pairs}
    assert len({answers[PHANTOMS[0]] for answers in known.values()}) == 2
    with serving(load_replica(settings_of(place, settings))) as client:
        over, wrong, seen = threading.Event(), [], set()

        def ask(number: int) -> None:
            while not over.is_set():
                body = PHANTOMS[number]
                reply = client.post("/analyze?cam=none", files={"file": body})
                if reply.status_code == HTTPStatus.OK:
                    answer = reply.json()
                    seen.add(answer["checkpoint"])
                    if answer["probability"] != pytest.approx(known[answer["checkpoint"]][body], abs=1e-4):
                        wrong.append(answer)
                elif reply.status_code != HTTPStatus.TOO_MANY_REQUESTS:
                    wrong.append(reply.text)

        callers = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
        for caller in callers:
            caller.start()
        for turn in range(1, 5):
            install(pairs[turn % 2], place)
            reply = client.post("/admin/reload")
            assert reply.json()["checkpoint"] == load_checkpoint(pairs[turn % 2] / "checkpoint").manifest.id
        over.set()
        for caller in callers:
            caller.join()
    assert wrong == []
    assert seen == set(known)


def test_pair_that_is_not_fit_is_refused_and_the_old_one_goes_on(
    settings: Settings, pairs: list[Path], place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(load_replica(settings_of(place, settings))) as client:
        before = client.post("/classify", files={"file": PHANTOMS[0]}).json()
        rmtree(place / "checkpoint")
        copytree(pairs[1] / "checkpoint", place / "checkpoint")  # without the gallery that belongs to it
        refused = client.post("/admin/reload")
        assert refused.status_code == HTTPStatus.CONFLICT
        assert str(place) not in refused.text
        reason = caplog.records[-1]
        assert str(place / "gallery") in reason.getMessage()
        assert not reason.exc_info
        assert client.get("/health/ready").status_code == HTTPStatus.OK
        assert client.post("/classify", files={"file": PHANTOMS[0]}).json() == before
        install(pairs[1], place)
        assert client.post("/admin/reload").status_code == HTTPStatus.OK


def test_answers_that_are_kept_are_forgotten_with_their_checkpoint(
    settings: Settings, pairs: list[Path], place: Path
) -> None:
    with serving(load_replica(settings_of(place, settings, result_cache_mib=64))) as client:
        before = client.post("/classify", files={"file": PHANTOMS[0]}).json()
        folder = place / "checkpoint"
        checkpoint = load_checkpoint(folder)
        manifest = replace(checkpoint.manifest, thresholds={"default": 0.999999})
        save_checkpoint(folder, Checkpoint(checkpoint.model, manifest))  # the same weights, and so the same id
        assert client.post("/admin/reload").json()["checkpoint"] == before["checkpoint"]
        after = client.post("/classify", files={"file": PHANTOMS[0]}).json()
        assert (after["probability"], after["threshold"]) == (before["probability"], 0.999999)
        assert metric(client, 'osteon_answers_total{source="kept"}') == 0


def test_stranger_may_not_reload_and_the_administrator_may(service: Replica, place: Path) -> None:
    guarded = settings_of(place, service.settings, admin_token=SecretStr("secret"))
    with serving(load_replica(guarded)) as client:
        for header in ({}, {"Authorization": "Bearer guess"}, {"Authorization": "secret"}):
            assert client.post("/admin/reload", headers=header).status_code == HTTPStatus.FORBIDDEN
        assert client.post("/admin/reload", headers={"Authorization": "Bearer secret"}).status_code == HTTPStatus.OK


def test_hangup_signal_reloads(settings: Settings, pairs: list[Path], place: Path) -> None:
    port = free_port()
    with process(settings_of(place, settings), port) as running:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=HUNG_SECONDS, trust_env=False) as client:
            first = wait_for_another(client, "")
            install(pairs[1], place)
            os.kill(running.pid, signal.SIGHUP)
            assert wait_for_another(client, first) == load_checkpoint(pairs[1] / "checkpoint").manifest.id
        running.send_signal(signal.SIGTERM)
        assert running.wait(HUNG_SECONDS) == 0


def wait_for_another(client: httpx.Client, checkpoint: str) -> str:
    """The id of the checkpoint that serves once it is another."""
    serving = [checkpoint]

    def is_another() -> bool:
        with suppress(httpx.TransportError):
            serving.append(str(client.get("/info").json()["checkpoint"]))
        return serving[-1] != checkpoint

    wait_until(is_another, "another checkpoint")
    return serving[-1]
