"""Builds a verified gallery folder from a checkpoint and a dataset; `build` is the table of contents.

Legend: N entries, D embedding, K vector.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from index_builder.embedder import Embedder
from index_builder.fit_projection import fit_projection, largest_dimension, scope_limit
from index_builder.shards import Plan, Shard, Workplace
from index_builder.verify import check_gallery, sampled_rows
from xray.artifact import put_in_place, require_replaceable
from xray.engines.engine import DeviceChoice, PrecisionChoice, load_engine
from xray.errors import DatasetError, InputError
from xray.gallery.entries import GalleryEntry
from xray.gallery.gallery import GalleryManifest
from xray.gallery.storage import load_gallery, save_gallery
from xray.gallery.vector_index import EmbeddingArray, StorageChoice
from xray.images.decoding.decode import decode_radiograph
from xray.mura.fingerprint import UNREADABLE, read_content
from xray.mura.overlap import require_disjoint
from xray.mura.studies import MuraRecord, Split, names_fingerprint, read_split, records_of
from xray.network.checkpoint import load_checkpoint
from xray.predictor import Predictor, Prepared

SHARD_SIZE = 128
"""Records per shard: what a kill can cost, and the most radiographs held in memory."""
SHOWN = 10
"""How many unreadable images the report names."""


@dataclass(frozen=True)
class BuildOptions:
    """Embed DATA/SPLIT with CHECKPOINT and write the gallery OUT; run again to go on after a kill."""

    checkpoint: Path
    """Checkpoint folder whose network makes the embeddings."""
    data: Path
    """Dataset folder in MURA layout."""
    out: Path
    """Gallery folder to write; an older one is replaced when the new one is whole."""
    split: str = "train"
    only: Literal["all", "abnormal"] = "all"
    """`abnormal` leaves normal radiographs out, as the original project did."""
    device: DeviceChoice = "auto"
    precision: PrecisionChoice = "auto"
    """The network's arithmetic on a CPU; `float32` for a gallery that other machines are to search."""
    batch: int = 16
    """Radiographs per forward pass."""
    storage: StorageChoice = "float32"
    """Of the vectors on disk. `float32` keeps them as they are; `float16` halves the file and reorders near ties."""
    dimension: int = 256
    """Numbers of the vectors that are searched, projected so that like lies beside like; fewer where there are few
    radiographs. 0 searches the embeddings themselves, and then nothing is known to be out of scope."""
    allow_overlap: bool = False
    """Go on where patients of the split are in another split of the dataset too: as neighbors of themselves."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"--batch is {self.batch}; give at least 1.")
        if self.dimension < 0:
            raise InputError(f"--dimension is {self.dimension}; give at least 0.")


@dataclass(frozen=True)
class Embedded:
    """The readable records as entries, their embeddings, and path and reason of each that could not be read."""

    entries: Sequence[GalleryEntry]
    embeddings_ND: EmbeddingArray
    unreadable: Sequence[tuple[str, str]]


def embed_shard(embedder: Embedder, records: Sequence[MuraRecord], first_row: int) -> Shard:
    """Embed one shard of records; those that cannot be read are named, not skipped in silence."""
    with ThreadPoolExecutor() as pool:
        outcomes = list(pool.map(lambda record: _prepared(embedder.predictor, record), records))
    results = [result for result, _ in outcomes]
    readable = [(first_row + i, item) for i, item in enumerate(results) if isinstance(item, Prepared)]
    unreadable = [(record.path, item) for record, item in zip(records, results, strict=True) if isinstance(item, str)]
    embeddings_nD = embedder.embed([item for _, item in readable])
    return Shard([row for row, _ in readable], embeddings_nD, unreadable, [digest for _, digest in outcomes])


def _prepared(predictor: Predictor, record: MuraRecord) -> tuple[Prepared | str, str]:
    """A radiograph, or why there is none; and the SHA-256 of the bytes that it was decoded from."""
    digest = UNREADABLE
    try:
        data, content = read_content(record.file)
        digest = content.digest
        return predictor.prepare(decode_radiograph(data)), digest
    except (InputError, OSError) as error:
        return str(error), digest


def build(options: BuildOptions) -> GalleryManifest:
    """Build a gallery, or go on with one whose builder was killed.

    Raises:
        ArtifactError: the checkpoint is damaged, or the finished gallery fails its own check.
        DatasetError: the split is empty, nothing in it can be read, or it shares patients with another split.
        InputError: OUT is no gallery, or an unfinished one of another checkpoint lies in the way.
        NoSpaceError: the disk is full; finished shards are kept, and so is the gallery that was there.
    """
    require_replaceable(options.out)
    checkpoint = load_checkpoint(options.checkpoint)
    split = read_split(options.data, options.split)
    records = records_to_index(options, split)
    require_disjoint(options.data, options.split, split.studies, options.allow_overlap)
    engine = load_engine(checkpoint, options.device, options.precision)
    embedder = Embedder(Predictor(checkpoint.manifest, engine), options.batch)
    plan = plan_of(options, checkpoint.manifest.id, records)
    workplace = Workplace.open(options.out, plan)
    shards = embed_missing(workplace, embedder, records)
    manifest = assemble(workplace.gallery, plan, records, shards, options)
    check_assembled(workplace.gallery, embedder, records)
    put_in_place(workplace.gallery, options.out)
    workplace.clear()
    if split.remark:
        print(split.remark)
    return manifest


def embed_missing(workplace: Workplace, embedder: Embedder, records: Sequence[MuraRecord]) -> list[Shard]:
    """All shards of the records; those that an earlier builder left are taken where their files are unchanged."""
    starts, kept = range(0, len(records), SHARD_SIZE), 0
    with tqdm(total=len(records), desc="embedding", unit="img") as bar:
        for number, start in enumerate(starts):
            shard_records = records[start : start + SHARD_SIZE]
            if workplace.has(number, [record.file for record in shard_records]):
                kept += 1
            else:
                workplace.put(number, embed_shard(embedder, shard_records, start))
            bar.update(len(shard_records))
    if kept:
        print(f"{kept} of {len(starts)} shards are those of a builder that was stopped")
    return [workplace.get(number) for number in range(len(starts))]


def records_to_index(options: BuildOptions, split: Split) -> list[MuraRecord]:
    """The images of the split that `--only` asks for.

    Raises:
        DatasetError: there is none.
    """
    records = records_of(split.studies)
    if options.only == "abnormal":
        records = [record for record in records if record.label == "abnormal"]
    if not records:
        raise DatasetError(f"{options.data / options.split} holds no abnormal study; leave out --only abnormal.")
    return records


def plan_of(options: BuildOptions, checkpoint_id: str, records: Sequence[MuraRecord]) -> Plan:
    """What decides the content of the gallery."""
    dataset = records[0].path.split("/", 1)[0]
    return Plan(checkpoint_id, dataset, options.split, options.only, names_fingerprint(records), SHARD_SIZE)


def assemble(
    folder: Path, plan: Plan, records: Sequence[MuraRecord], shards: Sequence[Shard], options: BuildOptions
) -> GalleryManifest:
    """Join the shards into a gallery folder, and report what could not be read."""
    entries = [_entry(records[row]) for shard in shards for row in shard.rows]
    unreadable = [fault for shard in shards for fault in shard.unreadable]
    if unreadable:
        print(f"{len(unreadable)} of {len(records)} images could not be read and are not in the gallery:")
        print("\n".join(f"  {path}: {reason}" for path, reason in unreadable[:SHOWN]))
    if not entries:
        raise DatasetError(f"None of the {len(records)} images could be read.")
    embeddings_ND = np.concatenate([shard.embeddings_nD for shard in shards if shard.rows])
    return save(folder, plan, Embedded(entries, embeddings_ND, unreadable), options)


def save(folder: Path, plan: Plan, embedded: Embedded, options: BuildOptions) -> GalleryManifest:
    """Fit the projection, if one is wanted and there is enough to fit it on, and write the gallery."""
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
        scope_limit=scope_limit(embeddings_ND, entries, dimension) if projection else None,
    )
    return save_gallery(folder, manifest, entries, vectors_NK, options.storage, projection)


def check_assembled(folder: Path, embedder: Embedder, records: Sequence[MuraRecord]) -> None:
    """Read the gallery back, and a sample of its radiographs once more."""
    gallery = load_gallery(folder, embedder.predictor.manifest.id)
    by_path = {record.path: record for record in records}
    rows = sampled_rows(gallery)
    again = embed_shard(embedder, [by_path[gallery.entries[row].path] for row in rows], first_row=0)
    check_gallery(gallery, dict(zip(rows, again.embeddings_nD, strict=True)))


def _entry(record: MuraRecord) -> GalleryEntry:
    return GalleryEntry(record.path, record.body_part, record.patient, record.study, record.label)
