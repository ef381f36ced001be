"""Wires everything a training run works with: its studies, its network, its optimizer, its processes."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from training.dataset.annotations import FILE, Annotation, annotations_fingerprint, read_annotations, say_unused
from training.dataset.image_cache import Canvases, decode_once
from training.dataset.loader import Feed, StudyBags, Views
from training.dataset.sampling import drawing_chances, loss_weights
from training.fit.distributed import Processes
from training.options import TrainOptions
from xray.errors import ArtifactError, DatasetError, InputError
from xray.images.preprocess import PREPROCESS_VERSION
from xray.mura.overlap import require_disjoint
from xray.mura.studies import Study, compute_fingerprint, read_split, records_of
from xray.network.checkpoint import load_checkpoint
from xray.network.model import XrayDenseNet, load_imagenet_weights

log = logging.getLogger(__name__)

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


@dataclass(frozen=True)
class Run:
    """Everything a run works with, wired in `start`."""

    options: TrainOptions
    processes: Processes
    training: list[Study]
    validation: list[Study]
    training_feed: Feed
    validation_feed: Feed
    views: Views
    model: XrayDenseNet
    optimizer: torch.optim.Optimizer
    average: AveragedModel | None

    @property
    def kept(self) -> XrayDenseNet:
        """The network that is validated and saved: the moving average, where one is kept."""
        kept = self.average.module if self.average else self.model
        assert isinstance(kept, XrayDenseNet)
        return kept

    @property
    def recipe(self) -> dict[str, object]:
        """All that decides the result: options, data and number of processes; compared when the run is resumed."""
        data: dict[str, object] = {
            "training data": self.fingerprint_of(self.training),
            "validation data": self.fingerprint_of(self.validation),
            "annotations": annotations_fingerprint(self.views.annotations),
            "version of the preprocessing": PREPROCESS_VERSION,
        }
        return self.options.recipe | data | {"processes": self.processes.count}

    def fingerprint_of(self, studies: Sequence[Study]) -> str:
        """Of the studies as they were decoded."""
        return compute_fingerprint(records_of(studies), self.views.canvases.digests)


def start(options: TrainOptions, processes: Processes) -> Run:
    """Read the dataset, check every image and build the network."""
    training, validation = (_split(options, name, processes.leads) for name in ("train", "valid"))
    annotations = read_annotations(options.data)
    if processes.leads:
        say_unused(annotations, "train", training)
    if options.window or options.box_loss:
        _require_boxes(training, annotations)
    views = Views(canvases_for(options, processes, [*training, *validation]), annotations)
    model = initial_model(options, processes.leads).to(processes.device).to(memory_format=torch.channels_last)
    optimizer = OPTIMIZERS[options.optimizer](
        model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    average = averaged(model, options.ema) if options.ema else None
    feeds = _training_feed(training, views, options), _validation_feed(validation, views, options)
    return Run(options, processes, training, validation, *feeds, views, model, optimizer, average)


def _training_feed(studies: Sequence[Study], views: Views, options: TrainOptions) -> Feed:
    return Feed(StudyBags(studies, loss_weights(studies, options), views, options, training=True), options)


def _validation_feed(studies: Sequence[Study], views: Views, options: TrainOptions) -> Feed:
    """Each study once, weighted as training draws it, so that both losses mean the same."""
    chances = drawing_chances(studies, options) * len(studies)
    weights = [float(c * w) for c, w in zip(chances, loss_weights(studies, options), strict=True)]
    return Feed(StudyBags(studies, weights, views, options, training=False), options)


def canvases_for(options: TrainOptions, processes: Processes, studies: Sequence[Study]) -> Canvases:
    """Every radiograph, decoded by the leading process while the others wait."""
    folder = options.out / "canvases"
    if processes.leads:
        decode_once(records_of(studies), options.preprocess, folder)
    processes.share([0.0])
    return Canvases(folder)


def averaged(model: XrayDenseNet, decay: float) -> AveragedModel:
    """The exponential moving average of a network's weights and statistics (Polyak and Juditsky 1992)."""
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)


def initial_model(options: TrainOptions, leads: bool = True) -> XrayDenseNet:
    """A network as `--weights` asks for it; the process that leads tells where they were taught with another map."""
    torch.manual_seed(options.seed)
    model = XrayDenseNet(options.architecture, options.preprocess, options.map_spec, options.study_pooling)
    if options.weights == "imagenet":
        load_imagenet_weights(model, options.architecture)
    elif options.weights != "none":
        if not Path(options.weights).is_dir():
            raise InputError(f"--weights is {options.weights!r}; give imagenet, none or a checkpoint folder.")
        given = load_checkpoint(Path(options.weights))
        if given.manifest.architecture != options.architecture:
            raise ArtifactError(f"{options.weights} is a {given.manifest.architecture}, not a {options.architecture}.")
        if leads and (taught := given.manifest.map_spec) != (here := options.map_spec):
            print(
                f"{options.weights} was trained with --map-stride {taught.stride} --map-pooling {taught.pooling}; "
                f"this run has {here.stride} and {here.pooling}, which its weights have to be taught anew."
            )
        # What weighs the views may be new, or no longer wanted; all else is the same network.
        weights = {name: tensor for name, tensor in given.model.state_dict().items() if _is_kept(name, model)}
        model.load_state_dict(model.state_dict() | weights)
    return model


def _is_kept(name: str, model: XrayDenseNet) -> bool:
    return model.attention is not None or not name.startswith("attention.")


def parallel(run: Run) -> nn.Module:
    """The model itself, or its data-parallel wrapper under `torchrun`."""
    return run.model if run.processes.count == 1 else DistributedDataParallel(run.model)


def _require_boxes(studies: Sequence[Study], annotations: Mapping[str, Annotation]) -> None:
    """Raises: DatasetError: an abnormal study has no box, so that nothing says where its finding lies."""
    boxed = {path for path, annotation in annotations.items() if annotation.boxes}
    without = [
        study.key for study in studies if study.target and not any(record.path in boxed for record in study.records)
    ]
    if without:
        raise DatasetError(
            f"{len(without)} abnormal studies have no box in {FILE}, e.g. {without[0]}; train without --window and "
            "--box-loss."
        )


def _split(options: TrainOptions, name: str, leads: bool) -> list[Study]:
    """The studies of a split; the process that leads says what is left out of them and what other splits share."""
    split = read_split(options.data, name)
    if len({study.target for study in split.studies}) < 2:
        raise DatasetError(f"{options.data / name} holds studies of one class only; both are needed.")
    if leads:
        if split.remark:
            log.warning(split.remark)
        require_disjoint(options.data, name, split.studies, options.allow_overlap)
    return split.studies
