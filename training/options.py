"""The options of a training run; each field is a flag of `python -m training train`."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from xray.engines.base import DeviceChoice
from xray.errors import InputError
from xray.images.preprocess import MAX_SIZE, MIN_SIZE, Framing, PreprocessSpec
from xray.network.backbone import BACKBONES, find_backbone
from xray.network.checkpoint import StorageType
from xray.network.decision import StudyPooling
from xray.network.model import MapPooling, MapSpec, MapStride

if TYPE_CHECKING:
    Architecture = str
else:  # the command line offers every registered name
    Architecture = tyro.extras.literal_type_from_choices(BACKBONES)
Precision = Literal["auto", "bfloat16", "float32"]

MACHINE_ONLY = frozenset({"data", "normals", "out", "device", "workers", "save_minutes", "allow_overlap"})
"""Options that do not change the result of a run, so they may differ when it is resumed."""
LARGEST_STRIDE = 32
"""Pixels per cell of the coarsest map."""


@dataclass(frozen=True)
class TrainOptions:
    """Train with these options on DATA/train, select on DATA/valid, write OUT/best and OUT/last; rerun to resume."""

    data: Path
    """Dataset folder in MURA layout, with train/ and valid/."""
    out: Path
    """Run folder; a killed run continues from it."""
    weights: str = "imagenet"
    """Start from `imagenet` (downloaded), `none` (random) or a checkpoint folder."""
    seed: int = 0
    """Determines the initial weights, the order of studies and every augmentation."""

    architecture: Architecture = "densenet201"
    size: int = 320
    """Side of the square input in pixels."""
    map_stride: MapStride = 32
    """Pixels of the input per cell of the CAM; 16 takes about a third more time, and efficientnet_b0 has only 32."""
    map_pooling: MapPooling = "mean"
    """How the map is pooled to the logit; with `lse`, a few cells can decide, which suits small findings."""
    study_pooling: StudyPooling = "mean"
    """How the radiographs' logits are pooled: mean probability, log-mean-exp, or a learned attention."""
    framing: Framing = "letterbox"
    """Input: the whole radiograph, or its window with the most edges."""

    epochs: int = 14
    batch_studies: int = 8
    """Studies per step and process, each with up to max_views radiographs."""
    max_views: int = 4
    """Maximum number of radiographs of a study per step, which limits the memory of a step."""
    sampling: Literal["balanced", "natural"] = "balanced"
    """Sample normal and abnormal studies equally often, or each study once per epoch."""
    loss_weights: Literal["body-part", "none"] = "body-part"
    """Weight each class by the other's share within its body part, as sampled."""
    window: int = 0
    """Train on windows of this many pixels of the input, most of them at a box of annotations.csv; 0: no windows.
    For a warm-up: a small finding fills a window, and windows take less time."""
    radiograph_loss: float = 0.0
    """Weight of the cross-entropy of each radiograph, added to that of the study."""
    box_loss: float = 0.0
    """Weight of the loss that moves the map into the boxes of annotations.csv."""
    augment: bool = True
    """Flip, rotate, scale, shift and change the gamma of training radiographs."""

    vary_appearance: bool = False
    """Change exposure, processing, resolution, borders and markers, as they differ between hospitals."""
    counterfactual: float = 0.0
    """Share of the studies of which one radiograph is shown with its findings erased, or with another's pasted in."""
    normals: tuple[Path, ...] = ()
    """More dataset folders, all of whose radiographs are taken as normal: they have other findings or none."""
    normals_share: float = 0.0
    """Share of the studies of an epoch that are of `--normals`, which the epoch has in addition."""

    optimizer: Literal["adam", "adamw"] = "adam"
    learning_rate: float = 1e-4
    weight_decay: float = 1e-5
    schedule: Literal["plateau", "one-cycle", "constant"] = "plateau"
    """`plateau` divides the rate by ten when the validation loss stops falling; `one-cycle` warms up and anneals."""
    ema: float = 0.0
    """Decay of a moving average of the weights, which is then validated and saved (0.99: about a hundred steps); 0: no
    average."""
    precision: Precision = "auto"
    """Precision of the features in training and validation. `auto` is bfloat16 if the hardware supports it: a CPU
    that does not is a hundred times slower in it."""

    storage: StorageType = "float32"
    """Number type of the stored weights of OUT/best and OUT/last."""
    device: DeviceChoice = "auto"
    workers: int = 0
    """Worker processes that load batches; 0 loads them in the training process."""
    save_minutes: float = 5.0
    """Minutes between saves of the run's state within an epoch."""
    allow_overlap: bool = False
    """Allow patients of train or valid in another split of the dataset."""

    def __post_init__(self) -> None:
        minimum = {
            "epochs": 1,
            "batch_studies": 1,
            "max_views": 1,
            "seed": 0,
            "workers": 0,
            "save_minutes": 0,
            "radiograph_loss": 0,
            "box_loss": 0,
            "counterfactual": 0,
        }
        for name, smallest in minimum.items():
            if getattr(self, name) < smallest:
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}; give at least {smallest}.")
        require_size(self.size)
        _require_stride(self.architecture, self.map_stride)
        if self.box_loss and self.size % self.map_stride:
            raise InputError(
                f"--box-loss compares boxes with cells of the map, and --size {self.size} does not divide into them; "
                f"give a multiple of {self.map_stride}."
            )
        if self.window and (self.window % LARGEST_STRIDE or not LARGEST_STRIDE <= self.window <= self.size):
            raise InputError(f"--window is {self.window}; give a multiple of {LARGEST_STRIDE} up to --size, or 0.")
        if not 0 <= self.normals_share < 1 or bool(self.normals_share) != bool(self.normals):
            raise InputError(
                f"--normals-share is {self.normals_share} for {len(self.normals)} --normals; give a share below 1 and "
                "the folders, or neither."
            )
        if not 0 <= self.ema < 1:
            raise InputError(f"--ema is {self.ema}; give 0 or more, below 1.")

    @property
    def map_spec(self) -> MapSpec:
        """The map's stride and pooling in the training options, for the manifest."""
        return MapSpec(self.map_stride, self.map_pooling)

    @property
    def preprocess(self) -> PreprocessSpec:
        """The preprocessing in the training options, for the manifest."""
        return PreprocessSpec(size=self.size, framing=self.framing)

    @property
    def recipe(self) -> dict[str, object]:
        """Return the training options that determine the result; a resumed run must have the same."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in MACHINE_ONLY}


def _require_stride(architecture: str, stride: int) -> None:
    """Raise InputError if the architecture has no map of that stride."""
    strides = find_backbone(architecture).strides
    if stride not in strides:
        raise InputError(f"--map-stride is {stride}; {architecture} has {' or '.join(map(str, strides))}.")


def require_size(size: int) -> None:
    """Raise InputError if the option `--size` is outside the range of the networks."""
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise InputError(f"--size is {size}; give {MIN_SIZE} to {MAX_SIZE} pixels.")
