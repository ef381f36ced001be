"""Compares an engine with the float32 reference on real radiographs, to decide whether it is fit to serve.

Legend: N radiographs, S canvas side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from training.dataset.radiographs import read_canvases
from training.evaluate.metrics import auroc
from xray.engines.base import DeviceChoice, Engine, Precision, PrecisionChoice
from xray.engines.batch_inference import Canvas, concatenate, infer_in_batches
from xray.engines.parity import LIMITS, Comparison, differences, mean, require_fit, worst
from xray.engines.registry import load_engine
from xray.engines.torch_engine import TorchEngine
from xray.errors import DatasetError
from xray.images.radiograph import PixelArray
from xray.mura.studies import MuraRecord, Study, read_mura, records_of
from xray.network.checkpoint import Checkpoint, load_checkpoint
from xray.network.model import ModelOutput

EXPORT_SAMPLE = 64
"""Number of radiographs for checking the checkpoint of a finished run: half a minute at 320 px on two cores."""


@dataclass(frozen=True)
class CheckOptions:
    """Compare an engine with the float32 reference on DATA/SPLIT; fail if it is not fit to serve."""

    checkpoint: Path
    """Checkpoint folder."""
    data: Path
    """Dataset folder in MURA layout."""
    split: str = "valid"
    device: DeviceChoice = "auto"
    precision: PrecisionChoice = "auto"
    """Precision of the network on a CPU; `auto` is the one that the service uses on this machine."""


@dataclass(frozen=True)
class Reference:
    """The reference for checking an engine: radiographs of both classes, and the float32 network's output for them.

    Attributes:
        pixels_N1SS: uint8, the network's inputs.
        output: output for all N radiographs.
        targets: target of each radiograph, 0 or 1.
    """

    pixels_N1SS: PixelArray
    output: ModelOutput
    targets: npt.NDArray[np.int64]


def check_engine(options: CheckOptions) -> Comparison:
    """Check an engine on every radiograph of the split, and print its differences from the reference and their limits.

    Raises:
        ArtifactError: the checkpoint is damaged, or a limit is exceeded.
        DatasetError: images cannot be read, or one class is missing.
    """
    checkpoint = load_checkpoint(options.checkpoint)
    records = records_of(read_mura(options.data, options.split))
    # Run the reference first, because engines may move the checkpoint's network to another device.
    reference = run_reference(checkpoint, records)
    engine = load_engine(checkpoint, options.device, options.precision)
    comparison = compare_engine(reference, engine)
    print_comparison(comparison, engine.precision)
    require_fit(comparison, engine.precision)
    return comparison


def check_export(folder: Path, studies: Sequence[Study]) -> Comparison:
    """Check the CPU's engine for a checkpoint that was just written, on a sample of the studies' radiographs.

    Raises:
        ArtifactError: a limit is exceeded.
        DatasetError: images cannot be read, or one class is missing.
    """
    checkpoint = load_checkpoint(folder)
    reference = run_reference(checkpoint, balanced_sample(records_of(studies), EXPORT_SAMPLE))
    engine = load_engine(checkpoint, "cpu")
    comparison = compare_engine(reference, engine)
    print(comparison)
    require_fit(comparison, engine.precision)
    return comparison


def balanced_sample(records: Sequence[MuraRecord], count: int) -> list[MuraRecord]:
    """Choose at most `count` records to run engines on, if possible equally many of each class, evenly spread."""
    chosen: list[MuraRecord] = []
    for target in (0, 1):
        own = [record for record in records if record.target == target]
        places = np.linspace(0, len(own) - 1, min(count // 2, len(own))).astype(int)
        chosen += [own[place] for place in places]
    return chosen


def run_reference(checkpoint: Checkpoint, records: Sequence[MuraRecord]) -> Reference:
    """Run the float32 reference on the records' radiographs, to check an engine against its output.

    Raises:
        DatasetError: images cannot be read, or one class is missing, so that there is no AUROC.
    """
    targets = np.array([record.target for record in records])
    if len(np.unique(targets)) < 2:
        raise DatasetError("The radiographs to compare on are of one class; normal and abnormal ones are needed.")
    pixels_N1SS = read_canvases(records, checkpoint.manifest.preprocess)
    output = _forward_all(TorchEngine(checkpoint, torch.device("cpu")), pixels_N1SS, "reference")
    return Reference(pixels_N1SS, output, targets)


def compare_engine(reference: Reference, engine: Engine) -> Comparison:
    """Check how an engine's output differs: run it on the reference's real radiographs, and measure the difference."""
    output = _forward_all(engine, reference.pixels_N1SS, engine.name)
    differing_N3 = differences(reference.output, output)
    areas = [auroc(reference.targets, each.logits_B.tolist()) for each in (reference.output, output)]
    abnormal = int(reference.targets.sum())
    return Comparison(engine.name, len(reference.targets), abnormal, worst(differing_N3), mean(differing_N3), *areas)


def print_comparison(comparison: Comparison, precision: Precision) -> None:
    """Print the result of checking an engine: its worst and mean differences from the reference, with their limits."""
    limit = LIMITS[precision]
    print(f"{comparison.engine} beside torch-float32-cpu on {comparison.images} radiographs")
    print(f"{'':20}{'worst':>10}{'mean':>10}{'limit':>10}")
    for label, name in (
        ("logit, difference", "logit"),
        ("embedding, cosine", "embedding"),
        ("map, correlation", "cam"),
    ):
        values = [getattr(each, name) for each in (comparison.worst, comparison.mean, limit)]
        print(f"{label:20}" + "".join(f"{value:>10.6f}" for value in values))
    change = comparison.auroc - comparison.reference_auroc
    print(
        f"AUROC {comparison.auroc:.4f}, of the reference {comparison.reference_auroc:.4f}: "
        f"{change:+.4f}, limit {comparison.auroc_limit:.4f}"
    )


def _forward_all(engine: Engine, pixels_N1SS: PixelArray, name: str) -> ModelOutput:
    """Return the engine's output for all radiographs; show a progress bar with a name."""
    passes = infer_in_batches(engine, map(Canvas, pixels_N1SS))
    return concatenate([output for _, output in tqdm(passes, total=len(pixels_N1SS), desc=name, unit="img")])
