"""Reads a network in int8: `graph.xml`, `graph.bin` and `manifest.json` in the folder `int8` of its checkpoint.

`python -m training quantize` writes the folder if the graph is close enough to the float32 reference.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from xray.artifact import read_manifest, verify_checksums
from xray.engines.parity import Comparison, require_fit
from xray.errors import ArtifactError, InputError
from xray.network.checkpoint import Checkpoint

SCHEMA_VERSION = 1
"""Version of the manifest's fields; manifests of other versions are refused."""
QUANTIZED = "int8"
"""Name of the folder in the checkpoint's folder."""
GRAPH = "graph.xml"
WEIGHTS = "graph.bin"
INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8")
"""CPU features that multiply bytes without intermediate saturation, by torch's names; one of them is enough."""


@dataclass(frozen=True)
class QuantizedManifest:
    """The manifest of an int8 graph: its origin, and its difference from the float32 reference.

    Attributes:
        checkpoint: id of the checkpoint.
        openvino, nncf: versions of the libraries that made and measured the graph.
        calibration_images: number of radiographs on which the ranges of the activations were measured.
        kept: parts of the network that stay in floating point.
        comparison: comparison with the reference, on radiographs that were not used for the calibration.
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


def verified_graph(checkpoint: Checkpoint) -> Path:
    """Return the path of a checkpoint's verified int8 graph for OpenVINO.

    `python -m training quantize` wrote it into the checkpoint's folder.

    Raises:
        ArtifactError: the graph is missing, damaged, of another checkpoint, or too far from the reference.
        InputError: the processor multiplies bytes with saturation, so that the comparison does not apply to it.
    """
    require_processor()
    folder = checkpoint.folder / QUANTIZED if checkpoint.folder else None
    if folder is None or not folder.is_dir():
        raise ArtifactError(
            f"{folder or QUANTIZED} is missing; make it with `python -m training quantize`, or use another precision."
        )
    manifest = read_manifest(folder, QuantizedManifest)
    verify_checksums(folder, {GRAPH: "", WEIGHTS: "", **manifest.checksums})
    if manifest.checkpoint != checkpoint.manifest.id:
        raise ArtifactError(
            f"{folder} was made for checkpoint {manifest.checkpoint}, not {checkpoint.manifest.id}; quantize it again."
        )
    require_fit(manifest.comparison, "int8")
    return folder / GRAPH


def require_processor() -> None:
    """Check that an int8 graph gives the same result on this processor as on the one where it was measured.

    Raises:
        InputError: the processor has none of `INSTRUCTIONS`.
    """
    capabilities = torch.cpu.get_capabilities()
    if not any(capabilities.get(name) for name in INSTRUCTIONS):
        raise InputError("int8 needs a processor with VNNI or AMX; set the precision to auto.")
