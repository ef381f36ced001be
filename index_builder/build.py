"""Builds a verified gallery folder from a checkpoint and a dataset; `build` is the table of contents.

Legend: N entries, D embedding, K vector.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from index_builder.embedder import Embedder
from index_builder.fit_projection import fit_projection, largest_dimension
from index_builder.shards import Plan, Shard, ShardStore
from index_builder.verify import check_gallery, sample_rows
from xray.artifact import replace_folder, require_replaceable
from xray.engines.base import DeviceChoice, PrecisionChoice
from xray.engines.batch_inference import prepare_ahead
from xray.engines.registry import load_engine
from xray.errors import DatasetError, InputError
from xray.gallery.entries import GalleryEntry
from xray.gallery.gallery import GalleryManifest
from xray.gallery.storage import load_gallery, save_gallery
from xray.gallery.vector_index import EmbeddingArray, StorageChoice
from xray.images.decoding.decode import decode_radiograph
from xray.mura.fingerprint import UNREADABLE, read_content
from xray.mura.overlap import require_disjoint
from xray.mura.studies import MuraRecord, Split, compute_names_fingerprint, read_split, records_of
from xray.network.checkpoint import load_checkpoint
from xray.predictor import Predictor, Prepared

SHARD_SIZE = 128
"""Number of records per shard: the most that have to be embedded again after a builder was killed."""
MAX_NAMED = 10
"""Maximum number of unreadable images to print with their reason."""


@dataclass(frozen=True)
class BuildOptions:
    """Embed DATA/SPLIT with CHECKPOINT and write the gallery OUT; run it again to continue after a kill."""

    checkpoint: Path
    """Checkpoint folder."""
    data: Path
    """Dataset folder in MURA layout."""
    out: Path
    """Gallery folder to write; an older one is replaced when the new one is complete."""
    split: str = "train"
    only: Literal["all", "abnormal"] = "all"
    """`abnormal` leaves out normal radiographs, like the original project."""
    device: DeviceChoice = "auto"
    precision: PrecisionChoice = "auto"
    """Precision of the network on a CPU; use `float32` for a gallery that other machines will search."""
    batch: int = 16
    """Radiographs per forward pass."""
    storage: StorageChoice = "float32"
    """Type of the vectors on disk. `float16` halves the file and reorders near ties."""
    dimension: int = 256
    """Dimension to which the embeddings are projected, so that radiographs of one body part and label are near each
    other; less if there are few radiographs. 0 searches the embeddings themselves."""
    allow_overlap: bool = False
    """Allow patients of the split in another split of the dataset, whose radiographs then find their own patients."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"--batch is {self.batch}; give at least 1.")
        if self.dimension < 0:
            raise InputError(f"--dimension is {self.dimension}; give at least 0.")


@dataclass(frozen=True)
class EmbeddedRecords:
    """What `build` makes a gallery from: the dataset's readable records, embedded, and a list of the others.

    Attributes:
        entries: gallery entries of the N readable records.
        embeddings_ND: float32.
        unreadable: dataset path and reason for each other record.
    """

    entries: Sequence[GalleryEntry]
    embeddings_ND: EmbeddingArray
    unreadable: Sequence[tuple[str, str]]


def embed_shard(embedder: Embedder, records: Sequence[MuraRecord], first_row: int) -> Shard:
    """As a step of `build`, embed a shard's records; `first_row` is the position of the first one in the dataset."""
    rows: list[int] = []
    unreadable: list[tuple[str, str]] = []
    digests: list[str] = []

    def readable() -> Iterator[Prepared]:
        outcomes = prepare_ahead(partial(_prepare, embedder.predictor), records)
        for row, (record, (result, digest)) in enumerate(zip(records, outcomes, strict=True), first_row):
            digests.append(digest)
            if isinstance(result, str):
                unreadable.append((record.path, result))
            else:
                rows.append(row)
                yield result

    embeddings_nD = embedder.embed(readable())
    return Shard(rows, embeddings_nD, unreadable, digests)


def _prepare(predictor: Predictor, record: MuraRecord) -> tuple[Prepared | str, str]:
    """Return the network's input for a record, or the reason why it cannot be read; and the SHA-256 of its file."""
    digest = UNREADABLE
    try:
        data, content = read_content(record.file)
        digest = content.digest
        return predictor.prepare(decode_radiograph(data)), digest
    except (InputError, OSError) as error:
        return str(error), digest


def build(options: BuildOptions) -> GalleryManifest:
    """Build a gallery from a dataset, or continue one whose builder was killed.

    Raises:
        ArtifactError: the checkpoint is damaged, or the finished gallery fails its own check.
        DatasetError: the split is empty, none of its images can be read, or it shares patients with another split.
        InputError: OUT exists but is no gallery, or an unfinished gallery of another checkpoint lies next to it.
        NoSpaceError: the disk is full; finished shards and the existing gallery are kept.
    """
    require_replaceable(options.out)
    checkpoint = load_checkpoint(options.checkpoint)
    split = read_split(options.data, options.split)
    records = select_records(options, split)
    require_disjoint(options.data, options.split, split.studies, options.allow_overlap)
    engine = load_engine(checkpoint, options.device, options.precision)
    embedder = Embedder(Predictor.from_artifacts(checkpoint, engine), options.batch)
    plan = make_plan(options, checkpoint.manifest.id, records)
    store = ShardStore.open(options.out, plan)
    shards = embed_all(store, embedder, records)
    manifest = assemble(store.gallery, plan, records, shards, options)
    check_assembled(store.gallery, embedder, records)
    replace_folder(store.gallery, options.out)
    store.delete()
    if split.remark:
        print(split.remark)
    return manifest


def embed_all(store: ShardStore, embedder: Embedder, records: Sequence[MuraRecord]) -> list[Shard]:
    """As a step of `build`, embed all records, shard by shard.

    A shard of an earlier builder is reused if its files have not changed.
    """
    starts = range(0, len(records), SHARD_SIZE)
    kept = 0
    with tqdm(total=len(records), desc="embedding", unit="img") as bar:
        for number, start in enumerate(starts):
            shard_records = records[start : start + SHARD_SIZE]
            if store.has(number, [record.file for record in shard_records]):
                kept += 1
            else:
                store.put(number, embed_shard(embedder, shard_records, start))
            bar.update(len(shard_records))
    if kept:
        print(f"{kept} of {len(starts)} shards are reused from a builder that was stopped")
    return [store.get(number) for number in range(len(starts))]


def select_records(options: BuildOptions, split: Split) -> list[MuraRecord]:
    """Return the records of the split to build the gallery from, as `--only` selects them.

    Raises:
        DatasetError: there are no such images.
    """
    records = records_of(split.studies)
    if options.only == "abnormal":
        records = [record for record in records if record.label == "abnormal"]
    if not records:
        raise DatasetError(f"{options.data / options.split} has no abnormal study; leave out --only abnormal.")
    return records


def make_plan(options: BuildOptions, checkpoint_id: str, records: Sequence[MuraRecord]) -> Plan:
    """Return the plan for building a gallery, which determines the content of its shards."""
    dataset = records[0].path.split("/", 1)[0]
    return Plan(checkpoint_id, dataset, options.split, options.only, compute_names_fingerprint(records), SHARD_SIZE)


def assemble(
    folder: Path, plan: Plan, records: Sequence[MuraRecord], shards: Sequence[Shard], options: BuildOptions
) -> GalleryManifest:
    """Build the gallery's folder from the shards, and print which images could not be read.

    Raises:
        DatasetError: no image could be read.
    """
    entries = [_entry(records[row]) for shard in shards for row in shard.rows]
    unreadable = [fault for shard in shards for fault in shard.unreadable]
    if unreadable:
        print(f"{len(unreadable)} of {len(records)} images could not be read and are not in the gallery:")
        print("\n".join(f"  {path}: {reason}" for path, reason in unreadable[:MAX_NAMED]))
    if not entries:
        raise DatasetError(f"None of the {len(records)} images could be read.")
    embeddings_ND = np.concatenate([shard.embeddings_nD for shard in shards if shard.rows])
    return write_projected(folder, plan, EmbeddedRecords(entries, embeddings_ND, unreadable), options)


def write_projected(folder: Path, plan: Plan, embedded: EmbeddedRecords, options: BuildOptions) -> GalleryManifest:
    """As a step of `build`, fit a projection and write the gallery with the projected embeddings.

    The embeddings are not projected if `--dimension` is 0 or there are too few radiographs.
    """
    entries, embeddings_ND = embedded.entries, embedded.embeddings_ND
    dimension = min(options.dimension, embeddings_ND.shape[1], largest_dimension(entries))
    projection = fit_projection(embeddings_ND, entries, dimension) if dimension else None
    vectors_NK = projection.project(embeddings_ND) if projection else embeddings_ND
    manifest = GalleryManifest(
        checkpoint=plan.checkpoint,
        dataset=plan.dataset,
        split=plan.split,
        only=plan.only,
        dimension=vectors_NK.shape[1],
        count=len(entries),
        unreadable=tuple(path for path, _ in embedded.unreadable),
    )
    return save_gallery(folder, manifest, entries, vectors_NK, options.storage, projection)


def check_assembled(folder: Path, embedder: Embedder, records: Sequence[MuraRecord]) -> None:
    """As a step of `build`, check the gallery: read it back, embed a sample of its radiographs again, and compare.

    Raises:
        ArtifactError: the gallery is damaged or its search is wrong.
    """
    gallery = load_gallery(folder, embedder.predictor.manifest.id)
    by_path = {record.path: record for record in records}
    rows = sample_rows(gallery)
    again = embed_shard(embedder, [by_path[gallery.entries[row].path] for row in rows], first_row=0)
    check_gallery(gallery, dict(zip(rows, again.embeddings_nD, strict=True)))


def _entry(record: MuraRecord) -> GalleryEntry:
    return GalleryEntry(record.path, record.body_part, record.patient, record.study, record.label)
