"""The gate measures what it says it measures, and an engine that is off does not pass it."""

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.phantoms import write_dataset
from training.__main__ import main
from training.export import check_engine as check_engine_module
from training.export.check_engine import (
    CheckOptions,
    Reference,
    balanced_sample,
    check_engine,
    check_export,
    compare_engine,
    run_reference,
)
from xray.engines.base import Engine, Precision
from xray.engines.batch_inference import BATCH_SIZE, select_rows
from xray.engines.parity import LIMITS, difference
from xray.engines.torch_engine import TorchEngine
from xray.errors import ArtifactError, DatasetError
from xray.images.radiograph import PixelArray
from xray.mura.studies import read_mura, records_of
from xray.network.checkpoint import Checkpoint, load_checkpoint
from xray.network.model import ModelOutput

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("gate") / "Phantoms", studies=18)


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="module")
def reference(checkpoint: Checkpoint, dataset: Path) -> Reference:
    return run_reference(checkpoint, records_of(read_mura(dataset, "valid")))


class OffByOneRadiograph:
    """The reference, but for one logit."""

    name = "fake"
    device = CPU
    precision: Precision = "bfloat16"

    def __init__(self, checkpoint: Checkpoint, logit: float) -> None:
        self._engine, self._logit, self._spoilt = TorchEngine(checkpoint, CPU), logit, False

    def forward(self, pixels_B1SS: PixelArray) -> ModelOutput:
        output = self._engine.forward(pixels_B1SS)
        if self._spoilt:
            return output
        self._spoilt = True
        return replace(output, logits_B=output.logits_B + self._logit * (torch.arange(len(pixels_B1SS)) == 0))

    def sizes_to_warm(self, largest: int) -> Iterable[int]:
        return ()


def test_worst_and_mean_are_those_of_all_batches(checkpoint: Checkpoint, reference: Reference) -> None:
    assert len(reference.pixels_N1SS) > BATCH_SIZE
    found = compare_engine(reference, OffByOneRadiograph(checkpoint, 0.5))
    assert found.images == len(reference.targets) == len(reference.pixels_N1SS)
    assert found.abnormal == reference.targets.sum()
    assert found.worst.logit == pytest.approx(0.5, abs=1e-5)
    assert found.mean.logit == pytest.approx(0.5 / found.images, abs=1e-5)
    assert found.worst.cam == pytest.approx(1)
    assert found.worst.embedding == pytest.approx(1, abs=1e-6)


def test_one_logit_that_changes_the_order_changes_the_area(checkpoint: Checkpoint, reference: Reference) -> None:
    found = compare_engine(reference, OffByOneRadiograph(checkpoint, 100.0))
    logits = reference.output.logits_B.numpy()
    others = logits[(reference.targets != reference.targets[0])]
    pairs_lost = (others > logits[0]).sum() / (found.abnormal * (found.images - found.abnormal))
    sign = 1 if reference.targets[0] else -1
    assert found.auroc - found.reference_auroc == pytest.approx(sign * pairs_lost)


def test_engine_within_the_limits_is_printed_beside_them(
    tiny_checkpoint: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_engine(CheckOptions(tiny_checkpoint, dataset, device="cpu", precision="float32"))
    printed = capsys.readouterr().out
    assert "openvino-float32-cpu" in printed
    assert f"{LIMITS['float32'].logit:.6f}" in printed
    assert "AUROC" in printed


@pytest.fixture
def spoilt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine that a checkpoint gets is off on its first radiograph, by more than bfloat16 may be."""

    def off(checkpoint: Checkpoint, *_: object, **__: object) -> Engine:
        return OffByOneRadiograph(checkpoint, 0.3)

    monkeypatch.setattr(check_engine_module, "load_engine", off)


REFUSAL = r"bfloat16 engine is not fit to serve: logit within 0\.3.*limits are: logit within 0\.15"


@pytest.mark.usefixtures("spoilt")
def test_engine_that_is_off_on_one_radiograph_is_refused(tiny_checkpoint: Path, dataset: Path) -> None:
    with pytest.raises(ArtifactError, match=REFUSAL):
        check_engine(CheckOptions(tiny_checkpoint, dataset, device="cpu"))


@pytest.mark.usefixtures("spoilt")
def test_export_whose_engine_is_off_is_refused(tiny_checkpoint: Path, dataset: Path) -> None:
    studies = read_mura(dataset, "valid")
    with pytest.raises(ArtifactError, match=REFUSAL):
        check_export(tiny_checkpoint, studies)


@pytest.mark.usefixtures("spoilt")
def test_command_ends_with_the_limits_and_no_traceback(
    tiny_checkpoint: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["check-engine", f"--checkpoint={tiny_checkpoint}", f"--data={dataset}", "--device=cpu"]
    monkeypatch.setattr(sys, "argv", ["training", *arguments])
    with pytest.raises(SystemExit, match=f"ArtifactError: The {REFUSAL}"):
        main()


def test_reference_is_the_float32_network(checkpoint: Checkpoint, reference: Reference) -> None:
    first = slice(BATCH_SIZE)
    again = TorchEngine(checkpoint, CPU).forward(reference.pixels_N1SS[first])
    assert difference(again, select_rows(reference.output, first)).logit == 0


def test_radiographs_of_one_class_say_nothing_about_their_order(checkpoint: Checkpoint, dataset: Path) -> None:
    normal = [record for record in records_of(read_mura(dataset, "valid")) if record.target == 0]
    with pytest.raises(DatasetError, match="one class"):
        run_reference(checkpoint, normal)


def test_sample_holds_both_classes_and_reaches_from_the_first_study_to_the_last(dataset: Path) -> None:
    records = records_of(read_mura(dataset, "valid"))
    chosen = balanced_sample(records, 6)
    for target in (0, 1):
        own = [record for record in records if record.target == target]
        drawn = [record for record in chosen if record.target == target]
        assert len(drawn) == len(set(drawn)) == 3
        assert (drawn[0], drawn[-1]) == (own[0], own[-1])
    assert len(balanced_sample(records, 10_000)) == len(records)
