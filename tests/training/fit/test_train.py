"""A run ends with the same weights whether it was killed or not, and refuses early what it cannot do."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from tests.conftest import ROOT
from tests.phantoms import write_dataset
from tests.waiting import HUNG_SECONDS
from training.dataset.image_cache import Canvases
from training.dataset.loader import StudyBags, Views, collate
from training.dataset.sampling import loss_weights, plan_epoch
from training.export.check_engine import check_export
from training.fit.loss import total_loss
from training.fit.resume import STATE
from training.fit.setup import create_model
from training.fit.train import train
from training.options import TrainOptions
from xray.artifact import MANIFEST
from xray.engines.parity import LIMITS, Difference, difference, noise_canvases, require_equal
from xray.engines.registry import load_engine
from xray.engines.torch_engine import TorchEngine
from xray.errors import ArtifactError, DatasetError, InputError
from xray.mura.studies import read_mura, records_of
from xray.network.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("train") / "Phantoms", studies=12)


@pytest.fixture
def options(dataset: Path, tmp_path: Path) -> TrainOptions:
    """Three epochs of three steps."""
    return TrainOptions(
        dataset,
        tmp_path / "run",
        weights="none",
        architecture="densenet121",
        size=32,
        epochs=3,
        batch_studies=4,
        device="cpu",
    )


@pytest.fixture(autouse=True)
def ungated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps make no network that has to be fit to serve in bfloat16, which some processors take."""
    monkeypatch.setattr("training.fit.train.check_export", lambda folder, studies: None)


def command(options: TrainOptions, *launcher: str) -> list[str]:
    """The same run as a process of its own, which saves its state after every step."""
    flags = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in ("data", "out", "weights", "size")]
    flags += [f"--architecture={options.architecture}", f"--epochs={options.epochs}", "--device=cpu"]
    flags += [f"--batch-studies={options.batch_studies}", "--save-minutes=0", f"--precision={options.precision}"]
    flags += [f"--ema={options.ema}"]
    return [sys.executable, *launcher, "-m", "training", "train", *flags]


def start_and_kill_after_next_save(options: TrainOptions) -> None:
    """SIGKILL, somewhere between the next change of the state file and the one after."""
    state = options.out / STATE
    before = state.stat().st_mtime_ns if state.exists() else 0
    with subprocess.Popen(command(options), cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not (state.exists() and state.stat().st_mtime_ns > before):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)


def results(out: Path) -> dict[str, object]:
    ids = {name: load_checkpoint(out / name).manifest.id for name in ("best", "last")}
    return ids | {"history": json.loads((out / "history.json").read_bytes())}


def test_killed_run_ends_as_the_unbroken_one_and_never_leaves_a_half_checkpoint(options: TrainOptions) -> None:
    options = replace(options, ema=0.5)
    broken = replace(options, out=options.out.with_name("broken"))
    for _ in range(2):
        start_and_kill_after_next_save(broken)
        for name in ("best", "last"):
            if (broken.out / name).exists():
                load_checkpoint(broken.out / name)
    train(broken)
    train(options)
    assert results(broken.out) == results(options.out)


def test_finished_run_given_again_changes_nothing(options: TrainOptions) -> None:
    short = replace(options, epochs=1)
    train(short)
    written = {path: path.stat().st_mtime_ns for path in short.out.rglob("*")}
    train(short)
    assert {path: path.stat().st_mtime_ns for path in short.out.rglob("*")} == written


def test_training_learns_what_it_is_shown(options: TrainOptions) -> None:
    train(replace(options, epochs=8, learning_rate=1e-3, augment=False, size=64))
    losses = [result["training_loss"] for result in json.loads((options.out / "history.json").read_bytes())]
    assert losses[-1] < losses[0] / 2


def test_windows_and_boxes_need_a_box_for_each_abnormal_study(options: TrainOptions) -> None:
    for without in (replace(options, window=32), replace(options, box_loss=1.0)):
        with pytest.raises(DatasetError, match=r"6 abnormal studies have no box in annotations\.csv"):
            train(without)


def test_the_kept_network_is_the_moving_average_of_the_trained_one(options: TrainOptions) -> None:
    train(replace(options, epochs=1, ema=0.9))
    state = load_file(options.out / STATE)
    saved = load_checkpoint(options.out / "last").model.state_dict()
    for name in ("features.conv0.weight", "classifier.weight"):
        assert torch.equal(saved[name], state[f"average.module.{name}"])
        assert not torch.equal(saved[name], state[f"model.{name}"])


def test_two_processes_step_with_the_mean_of_their_gradients(options: TrainOptions) -> None:
    one_step = replace(options, epochs=1, batch_studies=6, precision="float32", size=64)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    done = subprocess.run(command(one_step, *launcher), cwd=ROOT, capture_output=True, text=True, check=False)
    # As for `ungated`: the step is made and saved when the engine is looked at.
    assert done.returncode == 0 or "bfloat16 engine is not fit to serve" in done.stderr, done.stderr
    moments = load_file(one_step.out / STATE)

    studies = read_mura(one_step.data, "train")
    views = Views(Canvases(one_step.out / "canvases"), {})
    bags = StudyBags(studies, loss_weights(studies, one_step), views, one_step, training=True)
    (batch,) = plan_epoch(studies, one_step, epoch=0, processes=2)
    model = create_model(one_step).train()
    losses = []
    for rank in range(2):
        # Batch norms see the half of their own process, as under torchrun.
        half = collate([bags[draw] for draw in batch[rank::2]])
        loss = total_loss(model(half.pixels_N1SS), half, one_step)
        losses.append(float(loss.detach()))
        (loss / 2).backward()  # type: ignore[no-untyped-call]
    expected = torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])
    # After one step of Adam the first moment is a tenth of the gradient.
    firsts = [moments[f"optimizer.{index}.exp_avg"].flatten() for index in range(len(list(model.parameters())))]
    assert float((10 * torch.cat(firsts) - expected).norm() / expected.norm()) < 0.02
    (result,) = json.loads((one_step.out / "history.json").read_bytes())
    assert abs(losses[0] - losses[1]) > 0.01
    assert result["training_loss"] == pytest.approx(fmean(losses), abs=0.002)


ONE_RANK_DIVERGES = """
import os, sys, time, torch, training.fit.train
from pathlib import Path
from training.options import TrainOptions
from xray.errors import InputError

steps, real, out = [], training.fit.train.total_loss, Path(sys.argv[2])
def total_loss(output, bags, options):
    steps.append(len(steps))
    bad = os.environ["RANK"] == "1" and len(steps) == 2
    return real(output, bags, options) * (torch.nan if bad else 1)
training.fit.train.total_loss = total_loss

try:
    training.fit.train.train(TrainOptions(
        Path(sys.argv[1]), out, weights="none", architecture="densenet121", size=32, epochs=1,
        batch_studies=2, device="cpu", precision="float32", save_minutes=0,
    ))
except InputError as error:
    (out / f"rank{os.environ['RANK']}").write_text(str(error))
    # torchrun ends the other process as soon as one has ended.
    while len(list(out.glob("rank*"))) < 2:
        time.sleep(0.05)
    sys.exit(1)
"""


def test_loss_that_diverges_in_one_process_ends_all_of_them_before_the_step(
    options: TrainOptions, tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(ONE_RANK_DIVERGES)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    program = [str(tmp_path / "program.py"), str(options.data), str(options.out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*launcher, *program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=HUNG_SECONDS,
    )
    assert done.returncode == 1
    for rank in range(2):
        assert (options.out / f"rank{rank}").read_text().startswith("The loss became nan in epoch 1, step 2")
    assert all(tensor.isfinite().all() for tensor in load_file(options.out / STATE).values())


def test_gradient_that_is_no_number_ends_the_run_before_the_step(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss that is finite and whose gradient is not."""
    monkeypatch.setattr(
        "training.fit.train.total_loss", lambda output, bags, options: (output.logits_B * 0).sum().sqrt()
    )
    with pytest.raises(InputError, match="The gradient became nan in epoch 1, step 1"):
        train(options)
    assert not (options.out / STATE).exists()


def test_patient_in_both_splits_is_refused_unless_allowed(options: TrainOptions, tmp_path: Path) -> None:
    root = shutil.copytree(options.data, tmp_path / "Overlapping")
    for file in root.glob("*.csv"):
        file.unlink()
    shutil.copytree(root / "train/XR_HAND/patient00000", root / "valid/XR_HAND/patient00000")
    overlapping = replace(options, data=root, epochs=1)
    with pytest.raises(DatasetError, match=r"1 patients are in both train and valid .*--allow-overlap"):
        train(overlapping)
    train(replace(overlapping, allow_overlap=True))
    train(replace(overlapping, allow_overlap=True))


def test_radiographs_replaced_under_their_names_do_not_continue_a_run(options: TrainOptions, tmp_path: Path) -> None:
    root = shutil.copytree(options.data, tmp_path / "Phantoms")
    train(replace(options, data=root, epochs=1))
    first, second = (record.file for record in records_of(read_mura(root, "train"))[:2])
    shutil.copy(second, first)
    with pytest.raises(InputError, match=r"training data was '\w+', is '\w+'"):
        train(replace(options, data=root, epochs=1))


def test_other_annotations_do_not_continue_a_run(options: TrainOptions, tmp_path: Path) -> None:
    root = shutil.copytree(options.data, tmp_path / "Phantoms")
    train(replace(options, data=root, epochs=1))
    path = records_of(read_mura(root, "train"))[0].path
    (root / "annotations.csv").write_text(f'image,boxes\n{path},"[[0.1, 0.1, 0.2, 0.2]]"\n')
    with pytest.raises(InputError, match=r"annotations was '\w+', is '\w+'"):
        train(replace(options, data=root, epochs=1))


def test_given_weights_are_where_a_run_starts(
    options: TrainOptions, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    started = create_model(replace(options, weights=str(tiny_checkpoint))).state_dict()
    given = load_checkpoint(tiny_checkpoint).model.state_dict()
    assert all(torch.equal(started[name], tensor) for name, tensor in given.items())
    assert capsys.readouterr().out == ""
    weighing = replace(options, weights=str(tiny_checkpoint), study_pooling="attention", map_stride=16)
    extended = create_model(weighing).state_dict()
    assert "was trained with --map-stride 32 --map-pooling mean; this run has 16 and mean" in capsys.readouterr().out
    assert all(torch.equal(extended[name], tensor) for name, tensor in given.items())
    with pytest.raises(ArtifactError, match="is a densenet121, not a densenet169"):
        create_model(replace(options, weights=str(tiny_checkpoint), architecture="densenet169"))


def test_manifest_tells_what_the_network_was_trained_on_and_how_good_it_was(options: TrainOptions) -> None:
    train(replace(options, epochs=2))
    manifest = load_checkpoint(options.out / "best").manifest
    studies = read_mura(options.data, "train")
    data = manifest.training_data
    assert (data.name, data.studies, data.images) == ("Phantoms", len(studies), len(records_of(studies)))
    history = json.loads((options.out / "history.json").read_bytes())
    assert manifest.metrics["valid_study_auroc"] == max(result["validation_auroc"] for result in history)
    assert (options.out / "best" / MANIFEST).read_text().count("/tmp") == 0


@pytest.mark.parametrize("architecture", ["resnet50", "efficientnet_b0"])
def test_other_architectures_are_trained_exported_and_served(options: TrainOptions, architecture: str) -> None:
    train(replace(options, architecture=architecture, epochs=1, size=64))
    checkpoint = load_checkpoint(options.out / "best")
    assert checkpoint.manifest.architecture == architecture
    canvases = noise_canvases(3, 64)
    expected = TorchEngine(checkpoint, torch.device("cpu")).forward(canvases)
    engine = load_engine(checkpoint, "cpu", "float32")
    assert engine.name == "openvino-float32-cpu"
    require_equal(difference(expected, engine.forward(canvases)), "float32")


def test_strides_that_an_architecture_lacks_and_sizes_that_boxes_do_not_fit_are_refused(options: TrainOptions) -> None:
    with pytest.raises(InputError, match="--map-stride is 16; efficientnet_b0 has 32"):
        replace(options, architecture="efficientnet_b0", map_stride=16)
    with pytest.raises(InputError, match="--size 127 does not divide into them; give a multiple of 32"):
        replace(options, box_loss=1.0, size=127)


def test_checkpoint_whose_engine_is_unfit_is_kept_and_named_an_error(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("training.fit.train.check_export", check_export)
    short = replace(options, epochs=1)
    train(short)
    assert "-cpu on 16 radiographs: logit within" in capsys.readouterr().out
    monkeypatch.setattr("xray.engines.parity.LIMITS", dict.fromkeys(LIMITS, Difference(-1.0, 1.0, 1.0)))
    with pytest.raises(ArtifactError, match=r"not fit to serve: .* its limits are: logit within -1"):
        train(short)
    load_checkpoint(short.out / "best")


def test_other_options_do_not_continue_a_run(options: TrainOptions) -> None:
    train(replace(options, epochs=1))
    with pytest.raises(InputError, match=r"learning_rate was 0\.0001, is 0\.01"):
        train(replace(options, epochs=1, learning_rate=1e-2))


def test_other_data_do_not_continue_a_run(options: TrainOptions, tmp_path: Path) -> None:
    train(replace(options, epochs=1))
    other = write_dataset(tmp_path / "Other", studies=8)
    with pytest.raises(InputError, match=r"training data was '\w+', is '\w+'"):
        train(replace(options, epochs=1, data=other))


@pytest.mark.parametrize("name", ["epochs", "batch_studies", "max_views", "size"])
def test_option_out_of_range_is_named(options: TrainOptions, name: str) -> None:
    changed: dict[str, Any] = {name: 0}
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')} is 0; give"):
        replace(options, **changed)


@pytest.mark.parametrize("content", [b"torn", save({"a": torch.zeros(1)})])
def test_damaged_state_is_named(options: TrainOptions, content: bytes) -> None:
    options.out.mkdir()
    (options.out / STATE).write_bytes(content)
    with pytest.raises(ArtifactError, match=STATE):
        train(options)


def test_diverging_run_says_so(options: TrainOptions) -> None:
    with pytest.raises(InputError, match=r"epoch \d, step \d.*--learning-rate"):
        train(replace(options, learning_rate=1e30, optimizer="adamw", schedule="constant"))


def unreadable(root: Path) -> str:
    damaged = records_of(read_mura(root, "train"))[:3]
    for record in damaged:
        record.file.write_bytes(record.file.read_bytes()[:100])
    return rf"3 of \d+ images cannot be read(.|\n)*{damaged[0].path}"


def one_class(root: Path) -> str:
    for file in root.glob("*.csv"):
        file.unlink()
    for folder in root.glob("valid/*/*/*_positive"):
        shutil.rmtree(folder)
    return "one class only"


def emptied(root: Path) -> str:
    shutil.rmtree(root / "train")
    return "is not a folder"


@pytest.mark.parametrize("spoil", [unreadable, one_class, emptied])
def test_bad_dataset_is_refused_before_the_first_step(
    options: TrainOptions, tmp_path: Path, spoil: Callable[[Path], str]
) -> None:
    root = shutil.copytree(options.data, tmp_path / "Spoilt")
    fault = spoil(root)
    with pytest.raises(DatasetError, match=fault):
        train(replace(options, data=root))
    assert not (options.out / STATE).exists()


def test_command_line_ends_with_the_fault_and_no_traceback(options: TrainOptions, tmp_path: Path) -> None:
    nowhere = replace(options, data=tmp_path / "nowhere")
    done = subprocess.run(command(nowhere), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("DatasetError: ")
    assert "Traceback" not in done.stderr
