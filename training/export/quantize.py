"""Quantizes a checkpoint's features to int8, and writes them to its folder if they are close to the reference."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.dataset.radiographs import read_canvases
from training.export.check_engine import Reference, balanced_sample, compare_engine, print_comparison, run_reference
from xray.artifact import atomic_folder, require_replaceable, sha256, write_manifest
from xray.engines.int8_graph import GRAPH, QUANTIZED, WEIGHTS, QuantizedManifest, require_processor
from xray.engines.parity import LIMITS, Comparison
from xray.errors import ArtifactError, InputError
from xray.images.radiograph import PixelArray
from xray.mura.overlap import require_disjoint
from xray.mura.studies import read_mura, records_of
from xray.network.backbones.densenet import LAYERS
from xray.network.checkpoint import Checkpoint, load_checkpoint

MARGIN = 2 / 3
"""Share of each limit that may be used on the radiographs of the gate, because others may differ more."""


@dataclass(frozen=True)
class QuantizeOptions:
    """Quantize a checkpoint to int8 for CPUs; write CHECKPOINT/int8 if it is close to the float32 reference."""

    checkpoint: Path
    """Checkpoint folder."""
    data: Path
    """Dataset folder in MURA layout."""
    split: str = "train"
    """Split for measuring the ranges of the activations."""
    gate: str = "valid"
    """Split for the comparison with the reference; has to differ from the split for the ranges."""
    images: int = 300
    """Number of radiographs for measuring the ranges."""
    allow_overlap: bool = False
    """Allow patients of the gate in another split of the dataset."""

    def __post_init__(self) -> None:
        if self.images < 2:
            raise InputError(f"--images is {self.images}; give at least 2.")
        if self.split == self.gate:
            raise InputError(f"--split and --gate are both {self.split}; pass the gate on other radiographs.")


@dataclass(frozen=True)
class QuantizationInputs:
    """The inputs of every attempt to quantize a checkpoint.

    Attributes:
        pixels_N1SS: uint8, the radiographs for measuring the ranges of the activations.
    """

    checkpoint: Checkpoint
    pixels_N1SS: PixelArray
    reference: Reference


def quantize(options: QuantizeOptions) -> QuantizedManifest:
    """Quantize as much of the network as passes the gate with a margin, and write it to the checkpoint's folder.

    Raises:
        InputError: NNCF is not installed, this processor computes int8 differently from others, or the checkpoint is
            not a DenseNet.
        ArtifactError: the checkpoint is damaged, or no attempt passes the gate; nothing is written.
        DatasetError: images cannot be read, the gate lacks a class, or patients of the gate are in another split.
    """
    require_processor()
    checkpoint = load_checkpoint(options.checkpoint)
    _require_densenet(checkpoint)
    from training.export.int8 import NNCF_VERSION, parts_of
    from xray.engines.openvino_engine import VERSION

    target = options.checkpoint / QUANTIZED
    require_replaceable(target)
    calibration = balanced_sample(records_of(read_mura(options.data, options.split)), options.images)
    studies = read_mura(options.data, options.gate)
    require_disjoint(options.data, options.gate, studies, options.allow_overlap)
    pixels_N1SS = read_canvases(calibration, checkpoint.manifest.preprocess)
    inputs = QuantizationInputs(checkpoint, pixels_N1SS, run_reference(checkpoint, records_of(studies)))
    with atomic_folder(target) as partial:
        kept, comparison = _quantize_with_margin(inputs, parts_of(checkpoint), partial)
        checksums = {name: sha256(partial / name) for name in (GRAPH, WEIGHTS)}
        manifest = QuantizedManifest(
            checkpoint.manifest.id, VERSION, NNCF_VERSION, len(calibration), kept, comparison, checksums
        )
        write_manifest(partial, manifest)
    return manifest


def _require_densenet(checkpoint: Checkpoint) -> None:
    """Check that the architecture is a DenseNet, because quantization knows only its parts.

    Raises:
        InputError: the architecture is another one.
    """
    architecture = checkpoint.manifest.architecture
    if architecture not in LAYERS:
        raise InputError(f"int8 is implemented for {', '.join(LAYERS)}, not for {architecture}; serve it in bfloat16.")


def limit_usage(comparison: Comparison) -> float:
    """Return the largest share of a limit that an attempt to quantize uses; it passes up to 1, and fails if NaN."""
    worst = comparison.worst
    limit = LIMITS["int8"]
    shares = [
        worst.logit / limit.logit,
        (1 - worst.embedding) / (1 - limit.embedding),
        (1 - worst.cam) / (1 - limit.cam),
        abs(comparison.auroc - comparison.reference_auroc) / comparison.auroc_limit,
    ]
    return float(np.max(shares))


def _quantize_with_margin(
    inputs: QuantizationInputs, parts: list[str], folder: Path
) -> tuple[tuple[str, ...], Comparison]:
    """Keep more of the first parts in floating point, one at a time, until the graph passes with a margin.

    Raises:
        ArtifactError: no graph passes; the message has the differences of the last one.
    """
    for count in range(1, len(parts)):
        kept = tuple(parts[:count])
        comparison = _quantize(inputs, kept, folder)
        print(f"in floating point: {', '.join(kept)}")
        print_comparison(comparison, "int8")
        if limit_usage(comparison) <= MARGIN:
            return kept, comparison
    limits = LIMITS["int8"]
    raise ArtifactError(
        f"No quantized graph passes the gate with a third of each limit to spare; the last, with {', '.join(kept)} in "
        f"floating point: {comparison}; the limits are: {limits}, AUROC within "
        f"{comparison.auroc_limit:.4f}. Give more --images."
    )


def _quantize(inputs: QuantizationInputs, kept: tuple[str, ...], folder: Path) -> Comparison:
    """Quantize, write the graph, and compare the written graph with the reference."""
    from training.export.int8 import write_int8
    from xray.engines.openvino_engine import OpenVinoEngine, best_precision

    for file in folder.iterdir():
        file.unlink()  # delete instead of overwriting: the engine of the last attempt may still have the file mapped
    write_int8(inputs.checkpoint, inputs.pixels_N1SS, kept, folder / GRAPH)
    return compare_engine(
        inputs.reference, OpenVinoEngine(inputs.checkpoint, best_precision(), quantized=folder / GRAPH)
    )
