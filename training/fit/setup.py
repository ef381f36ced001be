"""Creates the parts of a training run: its studies, network, optimizer and processes."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.dataset.annotations import FILE, Annotation, annotations_fingerprint, read_annotations, warn_unused
from training.dataset.image_cache import Canvases, decode_once
from training.dataset.loader import BatchLoader, StudyBags, Views
from training.dataset.sampling import loss_weights, sampling_probabilities
from training.fit.distributed import Processes
from training.options import TrainOptions
from xray.errors import ArtifactError, DatasetError, InputError
from xray.images.preprocess import PREPROCESS_VERSION
from xray.mura.overlap import require_disjoint
from xray.mura.studies import Study, compute_fingerprint, read_split, records_of
from xray.network.checkpoint import load_checkpoint
from xray.network.model import XrayNetwork, load_imagenet_weights

log = logging.getLogger(__name__)

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
"""The optimizer for each value of `--optimizer`."""


@dataclass(frozen=True)
class Run:
    """The parts of a training run; `set_up` creates them.

    Attributes:
        ema: the moving average of the weights; None if it is off.
    """

    options: TrainOptions
    processes: Processes
    training: list[Study]
    validation: list[Study]
    training_loader: BatchLoader
    validation_loader: BatchLoader
    views: Views
    model: XrayNetwork
    optimizer: torch.optim.Optimizer
    ema: AveragedModel | None

    @property
    def eval_model(self) -> XrayNetwork:
        """The run's network to validate and save: the moving average or, if there is none, the model."""
        model = self.ema.module if self.ema else self.model
        assert isinstance(model, XrayNetwork)
        return model

    @property
    def recipe(self) -> dict[str, object]:
        """Return the run's recipe, everything that determines its result; a resumed run must have the same."""
        data: dict[str, object] = {
            "training data": self.fingerprint_of(self.training),
            "validation data": self.fingerprint_of(self.validation),
            "annotations": annotations_fingerprint(self.views.annotations),
            "version of the preprocessing": PREPROCESS_VERSION,
        }
        return self.options.recipe | data | {"processes": self.processes.count}

    def fingerprint_of(self, studies: Sequence[Study]) -> str:
        """Return the fingerprint of the run's training or validation studies when they were decoded."""
        return compute_fingerprint(records_of(studies), self.views.canvases.digests)


def set_up(options: TrainOptions, processes: Processes) -> Run:
    """Set up a training run: read the dataset, decode every image and create the network.

    Raises:
        DatasetError: a split is empty or has one class only, or an image cannot be read.
        ArtifactError: the weights to start from cannot be loaded.
        InputError: `--weights` is invalid.
    """
    training, validation = (_read_split(options, name, processes.is_main) for name in ("train", "valid"))
    training += [_as_normal(study) for folder in options.normals for study in read_split(folder, "train").studies]
    annotations = read_annotations(options.data)
    if processes.is_main:
        warn_unused(annotations, "train", training)
    if options.window or options.box_loss:
        _require_boxes(training, annotations)
    views = Views(decode_canvases(options, processes, [*training, *validation]), annotations)
    model = create_model(options, processes.is_main).to(processes.device).to(memory_format=torch.channels_last)
    optimizer = OPTIMIZERS[options.optimizer](
        model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    ema = create_ema(model, options.ema) if options.ema else None
    loaders = _training_loader(training, views, options), _validation_loader(validation, views, options)
    return Run(options, processes, training, validation, *loaders, views, model, optimizer, ema)


def _as_normal(study: Study) -> Study:
    return Study(tuple(replace(record, target=0) for record in study.records))


def _training_loader(studies: Sequence[Study], views: Views, options: TrainOptions) -> BatchLoader:
    return BatchLoader(StudyBags(studies, loss_weights(studies, options), views, options, training=True), options)


def _validation_loader(studies: Sequence[Study], views: Views, options: TrainOptions) -> BatchLoader:
    """Load each study once, weighted by how often training samples it, so that the two losses are comparable."""
    counts = sampling_probabilities(studies, options) * len(studies)
    weights = [float(c * w) for c, w in zip(counts, loss_weights(studies, options), strict=True)]
    return BatchLoader(StudyBags(studies, weights, views, options, training=False), options)


def decode_canvases(options: TrainOptions, processes: Processes, studies: Sequence[Study]) -> Canvases:
    """Set up a training run's inputs: rank 0 decodes the radiographs once to OUT/canvases while the others wait."""
    folder = options.out / "canvases"
    if processes.is_main:
        decode_once(records_of(studies), options.preprocess, folder)
    processes.broadcast([0.0])  # a barrier
    return Canvases(folder)


def create_ema(model: XrayNetwork, decay: float) -> AveragedModel:
    """Create a run's exponential moving average of the network's weights and statistics (Polyak and Juditsky 1992)."""
    update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def create_model(options: TrainOptions, is_main: bool = True) -> XrayNetwork:
    """Create a run's network with the weights of `--weights`; rank 0 warns if they were trained with another map.

    Raises:
        InputError: `--weights` is neither a known word nor a folder.
        ArtifactError: the checkpoint is damaged or of another architecture.
    """
    torch.manual_seed(options.seed)
    model = XrayNetwork(options.architecture, options.preprocess, options.map_spec, options.study_pooling)
    if options.weights == "imagenet":
        load_imagenet_weights(model)
    elif options.weights != "none":
        if not Path(options.weights).is_dir():
            raise InputError(f"--weights is {options.weights!r}; give imagenet, none or a checkpoint folder.")
        given = load_checkpoint(Path(options.weights))
        if given.manifest.architecture != options.architecture:
            raise ArtifactError(f"{options.weights} is a {given.manifest.architecture}, not a {options.architecture}.")
        before, now = given.manifest.map_spec, options.map_spec
        if is_main and before != now:
            print(
                f"{options.weights} was trained with --map-stride {before.stride} --map-pooling {before.pooling}; "
                f"this run has {now.stride} and {now.pooling}, which its weights have to learn first."
            )
        # Only the attention over views may be missing in one of the two; everything else must be the same.
        weights = {name: tensor for name, tensor in given.model.state_dict().items() if _is_kept(name, model)}
        model.load_state_dict(model.state_dict() | weights)
    return model


def _is_kept(name: str, model: XrayNetwork) -> bool:
    return model.attention is not None or not name.startswith("attention.")


def wrap_parallel(run: Run) -> nn.Module:
    """Return the run's model, set up to train: wrapped in DistributedDataParallel if there are several processes."""
    return run.model if run.processes.count == 1 else DistributedDataParallel(run.model)


def _require_boxes(studies: Sequence[Study], annotations: Mapping[str, Annotation]) -> None:
    """Raise DatasetError if an abnormal study has no box, because the position of its finding is then unknown."""
    boxed = {path for path, annotation in annotations.items() if annotation.boxes}
    without = [
        study.key for study in studies if study.target and not any(record.path in boxed for record in study.records)
    ]
    if without:
        raise DatasetError(
            f"{len(without)} abnormal studies have no box in {FILE}, e.g. {without[0]}; train without --window and "
            "--box-loss."
        )


def _read_split(options: TrainOptions, name: str, is_main: bool) -> list[Study]:
    """Read the studies of a split; rank 0 logs skipped entries and checks for patients that are in two splits."""
    split = read_split(options.data, name)
    if len({study.target for study in split.studies}) < 2:
        raise DatasetError(f"{options.data / name} has studies of one class only; both are needed.")
    if is_main:
        if split.remark:
            log.warning(split.remark)
        require_disjoint(options.data, name, split.studies, options.allow_overlap)
    return split.studies
