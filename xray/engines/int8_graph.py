"""A network quantised to int8 on disk: `graph.xml`, `graph.bin` and `manifest.json` in the checkpoint's folder `int8`.

`python -m training quantize` writes it when the equality gate passes; a service that is asked for int8 reads it.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from xray.artifact import read_manifest, verify_checksums
from xray.engines.parity import Comparison, require_fit
from xray.errors import ArtifactError, InputError

SCHEMA_VERSION = 1
QUANTIZED = "int8"
"""Name of the folder within the checkpoint's."""
GRAPH = "graph.xml"
WEIGHTS = "graph.bin"
INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8")
"""What multiplies bytes without saturating between two products, under torch's names; any of them will do."""


@dataclass(frozen=True)
class QuantizedManifest:
    """What a quantised graph was made from, and how far it is from the float32 reference.

    Attributes:
        checkpoint: id of the checkpoint.
        openvino, nncf: versions that made and measured it.
        calibration_images: radiographs that the ranges of the activations were taken from.
        kept: parts of the network that stay in floating point.
        comparison: the gate, on other radiographs than those of the calibration.
        checksums: SHA-256 of each file of the folder, by name.
    """

    checkpoint: str
    openvino: str
    nncf: str
    calibration_images: int
    kept: tuple[str, ...]
    comparison: Comparison
    checksums: dict[str, str]
    schema_version: int = SCHEMA_VERSION


def verified_graph(folder: Path | None, checkpoint: str) -> Path:
    """The file that OpenVINO reads, after everything that can be wrong with it has been ruled out.

    Args:
        folder: where `quantize` wrote; None where nobody said.
        checkpoint: id of the checkpoint whose head will read the features.

    Raises:
        ArtifactError: the graph is missing, damaged, of another checkpoint, or its recorded figures pass the limits.
        InputError: the processor multiplies bytes with saturation, so that the recorded figures do not hold for it.
    """
    require_processor()
    if folder is None or not folder.is_dir():
        raise ArtifactError(
            f"{folder or QUANTIZED} is missing; make it with `python -m training quantize`, or take another precision."
        )
    manifest = read_manifest(folder, QuantizedManifest)
    verify_checksums(folder, {GRAPH: "", WEIGHTS: "", **manifest.checksums})
    if manifest.checkpoint != checkpoint:
        raise ArtifactError(f"{folder} was made for checkpoint {manifest.checkpoint}, not {checkpoint}; quantize anew.")
    require_fit(manifest.comparison, QUANTIZED)
    return folder / GRAPH


def require_processor() -> None:
    """Raises: InputError: int8 would be another network here than where it was measured."""
    capabilities = torch.cpu.get_capabilities()
    if not any(capabilities.get(name) for name in INSTRUCTIONS):
        raise InputError("int8 needs a processor with VNNI or AMX; set the precision to auto.")
