"""What a training run can be told; each field is a flag of `python -m training train`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xray.engines.engine import DeviceChoice
from xray.errors import InputError
from xray.images.preprocess import MAX_SIZE, MIN_SIZE, Framing, PreprocessSpec
from xray.network.checkpoint import StorageType
from xray.network.decision import StudyPooling
from xray.network.densenet import Architecture, MapStride
from xray.network.model import MapPooling, MapSpec

Precision = Literal["auto", "bfloat16", "float32"]

MACHINE_ONLY = frozenset({"data", "out", "device", "workers", "save_minutes", "allow_overlap"})
"""Options that do not decide what a run computes: they may change when it is resumed."""
LARGEST_STRIDE = 32
"""Pixels per cell of the coarsest map."""


@dataclass(frozen=True)
class TrainOptions:
    """Train on DATA/train, choose on DATA/valid, write OUT/best and OUT/last; run again to resume."""

    data: Path
    """Dataset folder in MURA layout: it holds train/ and valid/."""
    out: Path
    """Run folder; a run that was killed goes on from what it finds here."""
    weights: str = "imagenet"
    """Start from `imagenet` (downloaded), `none` (random) or a checkpoint folder."""
    seed: int = 0
    """Fixes the initial weights, the order of studies and every augmentation."""

    architecture: Architecture = "densenet201"
    size: int = 320
    """Side of the square input in pixels."""
    map_stride: MapStride = 32
    """Pixels of the input per cell of the CAM; 16 costs about a third more."""
    map_pooling: MapPooling = "mean"
    """What makes the map the logit; `lse` lets few cells decide, as for a finding that covers few."""
    study_pooling: StudyPooling = "mean"
    """What makes the radiographs' logits the study's: the mean probability, log-mean-exp, or a learned attention."""
    framing: Framing = "letterbox"
    """Show the whole radiograph, or its window with the densest edges."""

    epochs: int = 14
    batch_studies: int = 8
    """Studies per step and process; a study brings all its radiographs, up to max_views."""
    max_views: int = 4
    """Radiographs drawn from one study per step; bounds the memory of a step."""
    sampling: Literal["balanced", "natural"] = "balanced"
    """SampledStudy normal and abnormal studies equally often, or each study once an epoch."""
    loss_weights: Literal["body-part", "none"] = "body-part"
    """Weigh a class by the other's share within its body part, counted as the sampling draws them."""
    window: int = 0
    """Train on windows of so many pixels of the input, half of them around a box of annotations.csv; 0 takes all of it.
    A warm-up: what is small fills a window, and windows cost less."""
    radiograph_loss: float = 0.0
    """Weight of the cross-entropy of each radiograph beside that of the study."""
    box_loss: float = 0.0
    """Weight of where the map looks, on radiographs for which annotations.csv has boxes."""
    augment: bool = True
    """Flip, rotate, scale, shift and change the gamma of training radiographs."""

    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 1e-4
    weight_decay: float = 1e-5
    schedule: Literal["plateau", "one-cycle", "constant"] = "plateau"
    """Plateau divides the rate by ten when the validation loss stops falling; one-cycle warms up and anneals."""
    ema: float = 0.0
    """Validate and keep a moving average of the weights that forgets so slowly (0.99: a hundred steps); 0 keeps the
    weights themselves."""
    precision: Precision = "auto"
    """Arithmetic of the features in training; validation during training uses the same. `auto` is bfloat16 where the
    device has it: a CPU that has to imitate it takes a hundred times as long."""

    storage: StorageType = "float32"
    """How the weights of OUT/best and OUT/last are stored."""
    device: DeviceChoice = "auto"
    workers: int = 0
    """Processes that decode radiographs beside the training process; 0 decodes in it."""
    save_minutes: float = 5.0
    """Minutes between savings of the run's state within an epoch."""
    allow_overlap: bool = False
    """Go on where patients of train or valid are in another split of the dataset too."""

    def __post_init__(self) -> None:
        at_least = {
            "epochs": 1,
            "batch_studies": 1,
            "max_views": 1,
            "seed": 0,
            "workers": 0,
            "save_minutes": 0,
            "radiograph_loss": 0,
            "box_loss": 0,
        }
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}; give at least {least}.")
        require_size(self.size)
        if self.window and (self.window % LARGEST_STRIDE or not LARGEST_STRIDE <= self.window <= self.size):
            raise InputError(f"--window is {self.window}; give a multiple of {LARGEST_STRIDE} up to --size, or 0.")
        if not 0 <= self.ema < 1:
            raise InputError(f"--ema is {self.ema}; give 0 or more, below 1.")

    @property
    def map_spec(self) -> MapSpec:
        return MapSpec(self.map_stride, self.map_pooling)

    @property
    def preprocess(self) -> PreprocessSpec:
        return PreprocessSpec(size=self.size, framing=self.framing)

    @property
    def recipe(self) -> dict[str, object]:
        """The options that decide the result, for comparison when a run is resumed."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in MACHINE_ONLY}


def require_size(size: int) -> None:
    """Raises: InputError: no network takes an input of that many pixels a side."""
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise InputError(f"--size is {size}; give {MIN_SIZE} to {MAX_SIZE} pixels.")
