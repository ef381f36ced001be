"""Quantizes the features to an OpenVINO graph in int8 with NNCF.

Only convolutions compute in int8: weights are quantized per output channel, activations per tensor (Jacob et al. 2018,
arXiv 1712.05877). The concatenations of a dense block stay in floating point, because the batch norms after them scale
the channels differently, so that one quantization step does not fit all: the starter's embeddings keep a cosine of
0.9998 instead of 0.994, at 78 radiographs per second instead of 103 (float32: 33).

The ranges span the extremes of all radiographs. NNCF's default, the mean of the extremes of each radiograph, clips
unusual radiographs and changes their logits by more than 1.
"""

import logging
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import openvino
from openvino._offline_transformations import apply_moc_transformations

from xray.engines.openvino_engine import to_graph
from xray.errors import InputError
from xray.images.radiograph import PixelArray
from xray.network.checkpoint import Checkpoint

# NNCF is imported after the CPU engine, which blocks the telemetry of OpenVINO and NNCF.
try:
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet
except ImportError as error:
    raise InputError("Quantizing needs NNCF, which is not installed; install the extra `quantize`.") from error

NNCF_VERSION: str = nncf.__version__
PART = re.compile(r"\.features\.(conv0|norm0|relu0|denseblock\d|transition\d)[./]")
"""Matches the part of the features in the name of a node."""
SAME_PART = {"norm0": "conv0", "relu0": "conv0"}
"""The first convolution is named after the next node: its batch norm's shift, or the ReLU if there is no shift."""
FLOATING = ("Add", "AvgPool", "MaxPool", "Multiply")
"""Operations to exclude, because NNCF would quantize them together with the concatenations that they read."""


def write_int8(checkpoint: Checkpoint, pixels_N1SS: PixelArray, kept: Collection[str], file: Path) -> None:
    """Convert the convolutions of all parts of the features but `kept` to int8 with NNCF; write the graph's two files.

    Args:
        pixels_N1SS: uint8, the radiographs for measuring the ranges of the activations.
        kept: parts, as in `parts_of`, that stay in floating point.
        file: the `.xml` file; the `.bin` file is written beside it.
    """
    nncf.set_log_level(logging.ERROR)
    graph = _prepared(checkpoint)
    names = [
        each.get_friendly_name()
        for each in graph.get_ops()
        if each.get_type_name() in FLOATING or (each.get_type_name() == "Convolution" and _part(each) in kept)
    ]
    quantized = nncf.quantize(
        graph,
        nncf.Dataset(list(pixels_N1SS[:, None])),
        subset_size=len(pixels_N1SS),
        ignored_scope=nncf.IgnoredScope(names=names),
        advanced_parameters=AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
        ),
    )
    openvino.save_model(quantized, file, compress_to_fp16=False)


def parts_of(checkpoint: Checkpoint) -> list[str]:
    """Return the parts of the features that can be in int8 or kept in floating point, in order from the input."""
    names = [name for name, _ in checkpoint.model.features.named_children() if PART.search(f".features.{name}.")]
    return [name for name in names if name not in SAME_PART]


def _prepared(checkpoint: Checkpoint) -> Any:
    """Return the graph with batch norms folded into the convolutions before them, which quantize better that way."""
    graph = to_graph(checkpoint, named=True)
    apply_moc_transformations(graph, cf=False)
    return graph


def _part(convolution: Any) -> str:
    """Return the part of a convolution; if a folded batch norm has replaced its name, that of the nodes after it."""
    readers = [target.get_node() for target in convolution.output(0).get_target_inputs()]
    for node in (convolution, *readers):
        if found := PART.search(node.get_friendly_name()):
            return SAME_PART.get(found[1], found[1])
    raise AssertionError(f"{convolution.get_friendly_name()} belongs to no part of the network")
