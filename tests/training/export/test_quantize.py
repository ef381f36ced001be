"""A network is quantised whole and fit, or not at all."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import openvino
import pytest

from tests.phantoms import write_dataset
from training.export.check_engine import CheckOptions, check_engine
from training.export.quantize import MARGIN, QuantizeOptions, limit_usage, quantize
from xray.engines.int8_graph import GRAPH, QUANTIZED, WEIGHTS, QuantizedManifest, require_processor
from xray.engines.parity import LIMITS, Comparison, Difference
from xray.engines.registry import load_engine
from xray.errors import ArtifactError, InputError
from xray.images.preprocess import PreprocessSpec
from xray.network.checkpoint import WEIGHTS as CHECKPOINT_WEIGHTS
from xray.network.checkpoint import Checkpoint, CheckpointManifest, TrainingData, load_checkpoint, save_checkpoint
from xray.network.model import XrayNetwork

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("quantize") / "Phantoms", studies=12)


@pytest.fixture(scope="module")
def able() -> None:
    """Skips where int8 cannot be made or run."""
    pytest.importorskip("nncf", reason="the extra `quantize` is not installed")
    try:
        require_processor()
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def folder(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copytree(tiny_checkpoint, tmp_path_factory.mktemp("quantised") / "checkpoint")


@pytest.fixture(scope="module")
def any_order() -> Iterator[None]:
    """An untrained network ranks radiographs at random, and otherwise after any change."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xray.engines.parity.AUROC_LIMIT", 1.0)
        yield


@pytest.fixture(scope="module")
def manifest(able: None, any_order: None, folder: Path, dataset: Path) -> QuantizedManifest:
    return quantize(QuantizeOptions(folder, dataset, images=8))


def test_service_gets_what_was_measured(manifest: QuantizedManifest, folder: Path, dataset: Path) -> None:
    again = check_engine(CheckOptions(folder, dataset, device="cpu", precision="int8"))
    assert again == manifest.comparison
    assert 0 < limit_usage(again) <= MARGIN


def test_convolutions_are_stored_in_a_byte_a_weight(manifest: QuantizedManifest, folder: Path) -> None:
    assert manifest.kept[0] == "conv0"
    assert (folder / QUANTIZED / WEIGHTS).stat().st_size < 0.35 * (folder / CHECKPOINT_WEIGHTS).stat().st_size


def test_concatenations_stay_in_floating_point(manifest: QuantizedManifest, folder: Path) -> None:
    graph = openvino.Core().read_model(folder / QUANTIZED / GRAPH)
    quantised = [each for each in graph.get_ops() if each.get_type_name() == "FakeQuantize"]
    readers = {to.get_node().get_type_name() for each in quantised for to in each.output(0).get_target_inputs()}
    assert readers == {"Convolution"}


def test_graph_names_no_path_of_the_machine(manifest: QuantizedManifest, folder: Path) -> None:
    assert all(str(Path.home()).encode() not in file.read_bytes() for file in (folder / QUANTIZED).iterdir())


@pytest.mark.usefixtures("able")
def test_nothing_is_written_when_no_graph_passes(
    tiny_checkpoint: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copytree(tiny_checkpoint, tmp_path / "checkpoint")
    before = sorted(path.name for path in folder.iterdir())
    monkeypatch.setitem(LIMITS, "int8", Difference(1e-9, 0.99, 0.99))
    monkeypatch.setattr("training.export.int8.parts_of", lambda checkpoint: ["conv0", "denseblock1"])
    with pytest.raises(ArtifactError, match=r"No quantized graph passes.*conv0 in floating point.*logit within"):
        quantize(QuantizeOptions(folder, dataset, images=4))
    assert sorted(path.name for path in folder.iterdir()) == before


def test_missing_nncf_is_one_line(tiny_checkpoint: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.export.quantize.require_processor", lambda: None)
    monkeypatch.setitem(sys.modules, "nncf", None)
    monkeypatch.delitem(sys.modules, "training.export.int8", raising=False)
    with pytest.raises(InputError, match="Quantizing needs NNCF, which is not installed; install the extra"):
        quantize(QuantizeOptions(tiny_checkpoint, dataset))


def test_architecture_without_int8_is_refused_before_work_begins(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.export.quantize.require_processor", lambda: None)
    spec = PreprocessSpec(size=64)
    manifest = CheckpointManifest("resnet50", spec, TrainingData("nothing", 0, 0, ""))
    save_checkpoint(tmp_path / "checkpoint", Checkpoint(XrayNetwork("resnet50", spec), manifest))
    with pytest.raises(InputError, match=r"int8 is implemented for densenet121, .*, not for resnet50"):
        quantize(QuantizeOptions(tmp_path / "checkpoint", dataset))


def test_gate_is_passed_on_other_radiographs_than_the_ranges_are_taken_from(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="other radiographs"):
        QuantizeOptions(tmp_path, tmp_path, split="valid")
    with pytest.raises(InputError, match="--images is 1"):
        QuantizeOptions(tmp_path, tmp_path, images=1)


def test_limit_usage_is_the_share_of_the_limit_that_is_nearest() -> None:
    limit, same = LIMITS["int8"], Difference(0.0, 1.0, 1.0)
    equal = Comparison("openvino-int8-cpu", 400, 200, same, same, 0.8, 0.8)
    assert limit_usage(equal) == 0
    assert limit_usage(replace(equal, worst=limit)) == pytest.approx(1)
    assert limit_usage(replace(equal, worst=replace(same, cam=(1 + limit.cam) / 2))) == pytest.approx(0.5)
    assert limit_usage(replace(equal, auroc=0.81)) == pytest.approx(0.01 / equal.auroc_limit)
    assert not limit_usage(replace(equal, worst=replace(same, logit=float("nan")))) <= 1


def test_checkpoint_without_a_graph_still_serves(tiny_checkpoint: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    with pytest.raises((ArtifactError, InputError)):
        load_engine(checkpoint, "cpu", "int8")
    assert load_engine(checkpoint, "cpu").name
