"""Fits the space of the training data's embeddings and its limit, and adds both to a checkpoint.

Legend: N radiographs, D numbers of an embedding, K dimensions of the space.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from xray.engines.base import DeviceChoice, PrecisionChoice
from xray.engines.batch_inference import Canvas, infer_in_batches, prepare_ahead
from xray.engines.registry import load_engine
from xray.errors import DatasetError
from xray.images.decoding.decode import read_radiograph
from xray.images.preprocess import preprocess
from xray.mura.studies import MuraRecord, read_mura, records_of
from xray.network.checkpoint import CheckpointManifest, load_checkpoint, save_scope
from xray.network.embedding_space import EmbeddingArray, EmbeddingSpace, principal_components, residuals

MAX_DIMENSION = 256
"""Maximum number of dimensions of the space."""
MIN_RADIOGRAPHS = 20
"""Minimum number of radiographs for fitting a space, which then has 10 dimensions."""
FOLDS = 5
"""Number of folds for cross-validating the limit."""
SCOPE_QUANTILE = 0.98
"""Share of radiographs within the limit of a space that was fitted without their study. At 0.98 the starter checkpoint
refuses 1 % of other limbs and 90 % of chests; at 0.99 it would refuse 0.5 % and 50 %."""


@dataclass(frozen=True)
class FitScopeOptions:
    """Fit the scope limit on the radiographs of DATA/SPLIT and add it to the checkpoint."""

    checkpoint: Path
    """Checkpoint folder; its weights and its ID do not change."""
    data: Path
    """Dataset folder in MURA layout."""
    split: str = "train"
    """Radiographs that the network was trained on."""
    device: DeviceChoice = "auto"
    precision: PrecisionChoice = "auto"
    """Precision of the network on a CPU; `auto` is the one that the service uses on this machine."""


def fit_scope(options: FitScopeOptions) -> CheckpointManifest:
    """Fit a checkpoint's scope: embed every radiograph of the split, fit the space and its limit, and write them.

    Raises:
        ArtifactError: the checkpoint is damaged.
        DatasetError: there are too few radiographs.
        InputError: an image cannot be read.
    """
    records = records_of(read_mura(options.data, options.split))
    if len(records) < MIN_RADIOGRAPHS:
        raise DatasetError(f"{options.split} has {len(records)} radiographs; a scope needs at least {MIN_RADIOGRAPHS}.")
    embeddings_ND = embed_records(options, records)
    return save_scope(options.checkpoint, fit_space(embeddings_ND, [record.study_key for record in records]))


def embed_records(options: FitScopeOptions, records: Sequence[MuraRecord]) -> EmbeddingArray:
    """Return the embeddings (N, D) of the records to fit a scope on, float32 of length 1.

    Raises:
        ArtifactError: the checkpoint is damaged.
        InputError: an image cannot be read.
    """
    checkpoint = load_checkpoint(options.checkpoint)
    engine = load_engine(checkpoint, options.device, options.precision)

    def prepare(record: MuraRecord) -> Canvas:
        return Canvas(preprocess(read_radiograph(record.file), checkpoint.manifest.preprocess)[0])

    passes = tqdm(
        infer_in_batches(engine, prepare_ahead(prepare, records)), total=len(records), desc="scope", unit="img"
    )
    return np.concatenate([output.embeddings_BD.numpy().copy() for _, output in passes])


def fit_space(embeddings_ND: EmbeddingArray, study_keys: Sequence[str]) -> EmbeddingSpace:
    """Fit the scope's space to all embeddings, and its limit by cross-validation over studies.

    Args:
        study_keys: key of each embedding's study, (N,).
    """
    dimension = min(MAX_DIMENSION, min(embeddings_ND.shape) // 2)  # fewer dimensions than the embeddings span
    mean_D, basis_DK = principal_components(embeddings_ND, dimension)
    residuals_N = _held_out_residuals(embeddings_ND, study_keys, dimension)
    limit = float(np.quantile(residuals_N, SCOPE_QUANTILE))
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
