"""Fits what a checkpoint can be applied to, and adds it to the checkpoint: its limbs, and its training data.

The limb classifier tells radiographs of limbs from other images; what is no limb is refused. The space of the training
data's embeddings tells which limbs are like the training data; others are answered as uncertain.

Legend: N radiographs, D numbers of an embedding, K dimensions of the space, S canvas side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from training.dataset.appearance import vary_appearance
from training.dataset.augment import augment
from training.export.limb_classifier import fit_limb_classifier
from xray.engines.base import DeviceChoice, Engine, PrecisionChoice
from xray.engines.batch_inference import Canvas, infer_in_batches, prepare_ahead
from xray.engines.registry import load_engine
from xray.errors import DatasetError, InputError
from xray.images.decoding.decode import read_radiograph
from xray.images.preprocess import PreprocessSpec, preprocess
from xray.mura.files import find_images
from xray.mura.studies import MuraRecord, read_mura, records_of
from xray.network.checkpoint import Checkpoint, CheckpointManifest, load_checkpoint, save_scope
from xray.network.embedding_space import EmbeddingArray, EmbeddingSpace, principal_components, residuals
from xray.network.ood import LimbClassifier

MAX_DIMENSION = 256
"""Maximum number of dimensions of the space."""
MIN_RADIOGRAPHS = 20
"""Minimum number of radiographs for fitting a space, which then has 10 dimensions."""
FOLDS = 5
"""Number of folds for cross-validating the limit."""
FAMILIAR_QUANTILE = 0.98
"""Share of radiographs within the limit of a space that was fitted without their study."""
MAX_LIMBS = 1500
"""Maximum number of radiographs that the limb classifier takes from each dataset, at random. It sees far fewer other
images."""
LIMB_VARIANTS, OTHER_VARIANTS = 2, 8
"""Number of embeddings of each image for the limb classifier: the image as it is, and augmented ones. There are far
fewer other images than limbs."""


@dataclass(frozen=True)
class FitScopeOptions:
    """Fit what a checkpoint can be applied to, on DATA/SPLIT and on other images, and add it to the checkpoint."""

    checkpoint: Path
    """Checkpoint folder; its weights and its ID do not change."""
    data: Path
    """Dataset folder in MURA layout."""
    also: tuple[Path, ...] = ()
    """More dataset folders that the network was trained on."""
    limbs: tuple[Path, ...] = ()
    """More dataset folders of limbs, which are in scope but unlike the training data: of other hospitals or parts."""
    others: tuple[Path, ...] = ()
    """Folders of images that are no radiographs of limbs: chests, spines, photographs. Without them, only images in
    color or with few gray levels are out of scope."""
    split: str = "train"
    """Radiographs that the network was trained on."""
    device: DeviceChoice = "auto"
    precision: PrecisionChoice = "auto"
    """Precision of the network on a CPU; `auto` is the one that the service uses on this machine."""


@dataclass(frozen=True)
class ImageVariant:
    """An image to embed, as it is or augmented.

    Attributes:
        group: key of the images that are held out together: those of a study, or the variants of a file.
        number: 0 for the image as it is; each other number is another augmentation.
    """

    file: Path
    group: str
    number: int = 0


def fit_scope(options: FitScopeOptions) -> CheckpointManifest:
    """Embed every image, fit the space, the limb classifier and their limits, and write them.

    Raises:
        ArtifactError: the checkpoint is damaged.
        DatasetError: there are too few radiographs, or none of the other images can be read.
        InputError: a radiograph cannot be read.
    """
    trained_on = [records_of(read_mura(folder, options.split)) for folder in (options.data, *options.also)]
    records = [record for each in trained_on for record in each]
    if len(records) < MIN_RADIOGRAPHS:
        raise DatasetError(f"{options.split} has {len(records)} radiographs; a scope needs at least {MIN_RADIOGRAPHS}.")
    others = [
        ImageVariant(file, f"{folder}/{path}")
        for folder in options.others
        for path, file in find_images(folder).images.items()
    ]
    checkpoint = load_checkpoint(options.checkpoint)
    engine = load_engine(checkpoint, options.device, options.precision)
    embeddings_ND = embed_records(checkpoint, engine, records)
    space = fit_space(embeddings_ND, [record.study_key for record in records])
    limbs = [*trained_on, *(records_of(read_mura(folder, options.split)) for folder in options.limbs)]
    limb_classifier = _fit_limb_classifier(checkpoint, engine, limbs, others) if others else None
    return save_scope(options.checkpoint, space, limb_classifier)


def describe_limits(manifest: CheckpointManifest) -> str:
    """Return a sentence with the limits that were fitted."""
    familiar = f"A limb is familiar up to a distance of {manifest.familiarity_limit:.4f} from the training data"
    if manifest.scope_limit is None:
        return f"{familiar}."
    return f"{familiar}; an image is in scope up to a probability of {manifest.scope_limit:.3f} that it shows no limb."


def embed_records(checkpoint: Checkpoint, engine: Engine, records: Sequence[MuraRecord]) -> EmbeddingArray:
    """Return the embeddings of the records (N, D), float32 of length 1.

    Raises:
        InputError: an image cannot be read.
    """
    images = [ImageVariant(record.file, record.study_key) for record in records]
    return _embed(checkpoint, engine, images, "training data")


def _fit_limb_classifier(
    checkpoint: Checkpoint, engine: Engine, datasets: Sequence[Sequence[MuraRecord]], others: Sequence[ImageVariant]
) -> LimbClassifier:
    records = [record for dataset in datasets for record in _sample(dataset)]
    readable = [each for each in others if _is_readable(each.file)]
    if len(readable) < len(others):
        print(f"{len(others) - len(readable)} of {len(others)} other images cannot be read and are left out.")
    limbs = [ImageVariant(record.file, record.study_key, n) for record in records for n in range(LIMB_VARIANTS)]
    other = [ImageVariant(each.file, each.group, n) for each in readable for n in range(OTHER_VARIANTS)]
    if not other:
        raise DatasetError("None of the other images can be read; give folders with PNG, JPEG or DICOM files.")
    limbs_ND, others_ND = (_embed(checkpoint, engine, *each) for each in ((limbs, "limbs"), (other, "other images")))
    return fit_limb_classifier(limbs_ND, [each.group for each in limbs], others_ND, [each.group for each in other])


def _sample(records: Sequence[MuraRecord]) -> list[MuraRecord]:
    chosen = np.random.default_rng(0).permutation(len(records))[:MAX_LIMBS]
    return [records[index] for index in sorted(chosen)]


def _is_readable(file: Path) -> bool:
    try:
        read_radiograph(file)
    except (InputError, OSError):
        return False
    return True


def _embed(checkpoint: Checkpoint, engine: Engine, images: Sequence[ImageVariant], name: str) -> EmbeddingArray:
    """Return the embeddings of the images, (N, D)."""
    inputs = prepare_ahead(lambda image: _canvas(image, checkpoint.manifest.preprocess), images)
    passes = tqdm(infer_in_batches(engine, inputs), total=len(images), desc=name, unit="img")
    return np.concatenate([output.embeddings_BD.numpy().copy() for _, output in passes])


def _canvas(image: ImageVariant, spec: PreprocessSpec) -> Canvas:
    pixels_1SS = preprocess(read_radiograph(image.file), spec)[0]
    if image.number:
        seed = [image.number, *image.group.encode()]
        random = np.random.default_rng(seed)
        pixels_1SS, _ = augment(pixels_1SS, np.zeros_like(pixels_1SS), random)
        pixels_1SS = vary_appearance(pixels_1SS, random)
    return Canvas(pixels_1SS)


def fit_space(embeddings_ND: EmbeddingArray, study_keys: Sequence[str]) -> EmbeddingSpace:
    """Fit the scope's space to all embeddings, and its limit by cross-validation over studies.

    Args:
        study_keys: key of each embedding's study, (N,).
    """
    dimension = min(MAX_DIMENSION, min(embeddings_ND.shape) // 2)  # fewer dimensions than the embeddings span
    mean_D, basis_DK = principal_components(embeddings_ND, dimension)
    residuals_N = _held_out_residuals(embeddings_ND, study_keys, dimension)
    limit = float(np.quantile(residuals_N, FAMILIAR_QUANTILE))
    return EmbeddingSpace(mean_D.astype(np.float32), np.ascontiguousarray(basis_DK, np.float32), limit)


def _held_out_residuals(
    embeddings_ND: EmbeddingArray, study_keys: Sequence[str], dimension: int
) -> npt.NDArray[np.floating]:
    """Return the residual of each embedding under a space that was fitted without its fold of studies."""
    _, studies_N = np.unique(study_keys, return_inverse=True)
    folds_N = np.random.default_rng(0).permutation(studies_N.max() + 1)[studies_N] % FOLDS
    return np.concatenate(
        [
            residuals(embeddings_ND[folds_N == fold], *principal_components(embeddings_ND[folds_N != fold], dimension))
            for fold in range(FOLDS)
            if (folds_N == fold).any()
        ]
    )
