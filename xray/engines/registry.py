"""Lists the engines, and chooses the one that serves a checkpoint on this machine.

To add an engine, write a module with a class that has the members of `Engine` and a function that builds it from an
`EngineRequest`, and add it to `ENGINES`.

Legend: B batch, S canvas side.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Literal

import torch

from xray.engines.base import DeviceChoice, Engine, EngineRequest, Precision, PrecisionChoice
from xray.engines.parity import difference, noise_canvases, require_equal
from xray.engines.torch_engine import TorchEngine
from xray.errors import InputError
from xray.images.radiograph import PixelArray
from xray.network.backbones.densenet import LAYERS
from xray.network.checkpoint import Checkpoint


@dataclass(frozen=True)
class EngineFactory:
    """The interface through which the engines of one kind are built, with the devices and precisions they are for.

    Attributes:
        name: name in the log.
        device: type of the devices on which it runs, as named by torch.
        precisions: the precisions in which it computes.
        build: builds the engine. If it raises ImportError because a package is missing, the next engine is tried.
        architectures: names of the architectures that it can run; None means all.
        is_checked: whether it must agree with the reference at every start, because its result depends on the
            machine's compilers and drivers. If the check or anything else fails, the next engine is tried.
    """

    name: str
    device: Literal["cpu", "cuda"]
    precisions: frozenset[Precision]
    build: Callable[[EngineRequest], Engine]
    architectures: frozenset[str] | None = None
    is_checked: bool = False

    def is_for(self, request: EngineRequest) -> bool:
        """Return whether this kind of engine runs on the requested device in the requested precision."""
        return self.device == request.device.type and request.precision in ("auto", *self.precisions)


def imported(function: str) -> Callable[[EngineRequest], Engine]:
    """Return a function with the interface to build an engine; it imports `package.module:function` on its first call.

    The packages that an engine needs are large and may be missing, so only the engine in use is imported.
    """

    def build(request: EngineRequest) -> Engine:
        engine: Engine = resolve_name(function)(request)
        return engine

    return build


CHECKED_CANVASES = 3
"""Number of canvases in the check at start-up; not a power of two, so that the check covers a padded batch."""
ENGINES: tuple[EngineFactory, ...] = (
    EngineFactory(
        "cuda-fused",
        "cuda",
        frozenset({"bfloat16"}),
        imported("xray.engines.cuda_engine:build_fused"),
        architectures=frozenset(LAYERS),
        is_checked=True,
    ),
    EngineFactory(
        "cuda-graphs",
        "cuda",
        frozenset({"bfloat16"}),
        imported("xray.engines.cuda_engine:build_graphs"),
        is_checked=True,
    ),
    EngineFactory(
        "openvino",
        "cpu",
        frozenset({"float32", "bfloat16", "int8"}),
        imported("xray.engines.openvino_engine:build"),
    ),
)
"""All engines except the reference, the fastest on each device first. If none of them works, the reference serves."""

logger = logging.getLogger(__name__)


def choose_device(choice: DeviceChoice) -> torch.device:
    """Return the device on which the chosen engine will run; `auto` means the GPU if there is one.

    Raises:
        InputError: `cuda` was requested but torch sees no GPU.
    """
    if choice == "cuda" and not torch.cuda.is_available():
        raise InputError("The device is set to cuda, but torch sees no GPU; use auto or cpu, or fix the driver.")
    return torch.device("cuda" if choice != "cpu" and torch.cuda.is_available() else "cpu")


def load_engine(
    checkpoint: Checkpoint,
    choice: DeviceChoice,
    precision: PrecisionChoice = "auto",
    cache: Path | None = None,
) -> Engine:
    """Return the fastest registered engine for a checkpoint on the chosen device.

    Args:
        precision: precision of the features; `auto` means the fastest that the device has, except `int8`, which
            differs from the reference by more than the others.
        cache: folder that keeps compiled networks for later starts.

    Raises:
        InputError: the device is missing, or no engine has that precision on it.
        ArtifactError: the quantized graph is missing, damaged, of another checkpoint or not fit to serve.
    """
    request = EngineRequest(checkpoint, choose_device(choice), precision, cache)
    factories = [factory for factory in ENGINES if factory.is_for(request)]
    if precision == "int8" and not factories:
        raise InputError("int8 is for CPUs; on a GPU use auto, bfloat16 or float32, or set the device to cpu.")
    return first_fit(factories, request)


def first_fit(factories: Sequence[EngineFactory], request: EngineRequest) -> Engine:
    """Return the first registered engine that can serve the request, or the reference if none can.

    Raises:
        RuntimeError: not even the reference runs on the device, as after some CUDA errors.
        XrayError: the builder of an engine that is not checked has failed.
    """
    architecture = request.checkpoint.manifest.architecture
    for factory in factories:
        if factory.architectures is not None and architecture not in factory.architectures:
            known = ", ".join(sorted(factory.architectures))
            logger.info("%s runs %s only; a slower engine takes its place for %s.", factory.name, known, architecture)
        elif engine := _build_checked(factory, request) if factory.is_checked else _build(factory, request):
            return engine
    reference = TorchEngine(request.checkpoint, request.device)
    if any(factory.is_checked for factory in factories):
        reference.forward(_canvases(request))  # raises errors that affect all engines, at start-up
    return reference


def _canvases(request: EngineRequest) -> PixelArray:
    """Return noise canvases of the checkpoint's size, uint8 (B, 1, S, S)."""
    return noise_canvases(CHECKED_CANVASES, request.checkpoint.manifest.preprocess.size)


def _build(factory: EngineFactory, request: EngineRequest) -> Engine | None:
    """Build the factory's engine; return None if a package is missing."""
    try:
        return factory.build(request)
    except ImportError as error:
        logger.warning("%s Until then torch runs the network, several times slower.", error)
        return None


def _build_checked(factory: EngineFactory, request: EngineRequest) -> Engine | None:
    """Build the factory's engine; return None if it cannot be built, does not run or disagrees with the reference."""
    reference = TorchEngine(request.checkpoint, request.device)
    canvases_B1SS = _canvases(request)
    try:
        engine = factory.build(request)
        found = difference(reference.forward(canvases_B1SS), engine.forward(canvases_B1SS))
        require_equal(found, engine.precision)
    except Exception:  # compilers and drivers may raise anything, and a slower engine can still serve
        logger.exception("%s cannot serve on this machine; a slower engine takes its place.", factory.name)
        return None
    logger.info("%s agrees with the reference: %s.", engine.name, found)
    return engine
