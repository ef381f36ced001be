"""A checkpoint and radiographs in, its features in int8 out: written into its folder if the equality gate passes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.dataset.loader import require_readable
from training.export.check_engine import Reference, canvases, compare, print_comparison, reference_for, sample
from xray.artifact import atomic_folder, require_replaceable, sha256, write_manifest
from xray.engines.int8_graph import GRAPH, QUANTIZED, WEIGHTS, QuantizedManifest, require_processor
from xray.engines.parity import LIMITS, Comparison
from xray.errors import ArtifactError, InputError
from xray.mura.overlap import require_disjoint
from xray.mura.studies import MuraRecord, read_mura, records_of
from xray.network.checkpoint import Checkpoint, load_checkpoint

ROOM = 2 / 3
"""Share of each limit that may be used up on the radiographs at hand: there are others."""


@dataclass(frozen=True)
class QuantizeOptions:
    """Quantise a checkpoint to int8 for CPUs; write CHECKPOINT/int8 if it passes the equality gate."""

    checkpoint: Path
    """Checkpoint folder."""
    data: Path
    """Dataset folder in MURA layout."""
    split: str = "train"
    """Radiographs to take the ranges of the activations from."""
    gate: str = "valid"
    """Radiographs to pass the gate on: others than those of the ranges."""
    images: int = 300
    """How many radiographs of the split the ranges are taken from."""
    allow_overlap: bool = False
    """Go on where patients of the gate are in another split of the dataset too."""

    def __post_init__(self) -> None:
        if self.images < 2:
            raise InputError(f"--images is {self.images}; give at least 2.")
        if self.split == self.gate:
            raise InputError(f"--split and --gate are both {self.split}; pass the gate on other radiographs.")


@dataclass(frozen=True)
class Trial:
    """What every attempt at quantising one checkpoint works with."""

    checkpoint: Checkpoint
    calibration: list[MuraRecord]
    reference: Reference


def quantize(options: QuantizeOptions) -> QuantizedManifest:
    """Quantise as much of the network as the gate lets through with room, and write it into the checkpoint's folder.

    Raises:
        InputError: NNCF is not installed, or this processor's int8 is not what others compute.
        ArtifactError: the checkpoint is damaged, or nothing that was tried passes the gate; nothing is written.
        DatasetError: images cannot be read, one class is missing among those of the gate, or another split has some of
            its patients.
    """
    require_processor()
    from training.export.int8 import NNCF_VERSION, parts_of
    from xray.engines.openvino_engine import VERSION

    target = options.checkpoint / QUANTIZED
    require_replaceable(target)
    checkpoint = load_checkpoint(options.checkpoint)
    calibration = sample(records_of(read_mura(options.data, options.split)), options.images)
    studies = read_mura(options.data, options.gate)
    require_disjoint(options.data, options.gate, studies, options.allow_overlap)
    gate = records_of(studies)
    require_readable([*calibration, *gate])
    trial = Trial(checkpoint, calibration, reference_for(checkpoint, gate))
    with atomic_folder(target) as partial:
        kept, comparison = _first_with_room(trial, parts_of(checkpoint), partial)
        checksums = {name: sha256(partial / name) for name in (GRAPH, WEIGHTS)}
        manifest = QuantizedManifest(
            checkpoint.manifest.id, VERSION, NNCF_VERSION, len(calibration), kept, comparison, checksums
        )
        write_manifest(partial, manifest)
    return manifest


def used(comparison: Comparison) -> float:
    """The largest share of a limit that an int8 engine uses up; at most 1 is fit to serve, and NaN is not."""
    found, limit = comparison.worst, LIMITS[QUANTIZED]
    shares = [
        found.logit / limit.logit,
        (1 - found.embedding) / (1 - limit.embedding),
        (1 - found.cam) / (1 - limit.cam),
        abs(comparison.auroc - comparison.reference_auroc) / comparison.auroc_limit,
    ]
    return float(np.max(shares))


def _first_with_room(trial: Trial, parts: list[str], folder: Path) -> tuple[tuple[str, ...], Comparison]:
    """Write the graph that keeps the fewest of the first parts in floating point and passes with room.

    Raises:
        ArtifactError: not even the last one has room; the message tells the figures.
    """
    for count in range(1, len(parts)):
        kept = tuple(parts[:count])
        comparison = _attempt(trial, kept, folder)
        print(f"in floating point: {', '.join(kept)}")
        print_comparison(comparison)
        if used(comparison) <= ROOM:
            return kept, comparison
    raise ArtifactError(
        f"No quantised graph passes the gate with a third of each limit to spare; the last, with {', '.join(kept)} in "
        f"floating point: {comparison}; the limits are: {LIMITS[QUANTIZED]}, AUROC within "
        f"{comparison.auroc_limit:.4f}. Give more --images."
    )


def _attempt(trial: Trial, kept: tuple[str, ...], folder: Path) -> Comparison:
    """Quantise, write and measure what was written."""
    from training.export.int8 import write_int8
    from xray.engines.openvino_engine import OpenVinoEngine, best_precision

    for former in folder.iterdir():
        former.unlink()  # not overwritten: the engine of the attempt before may still have it mapped
    pixels_N1SS = canvases(trial.calibration, trial.checkpoint.manifest.preprocess)
    write_int8(trial.checkpoint, pixels_N1SS, kept, folder / GRAPH)
    return compare(trial.reference, OpenVinoEngine(trial.checkpoint, best_precision(), quantized=folder / GRAPH))
