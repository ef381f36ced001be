"""Keeps the embeddings of finished shards on disk, so that a killed builder continues where it stopped.

    .GALLERY.building/plan.json          the plan of the gallery; shards of different plans are never mixed
    .GALLERY.building/00000.safetensors  the embeddings of one shard of records, and its unreadable images

Legend: n readable records of a shard, D embedding.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from xray.artifact import atomic_file
from xray.errors import ArtifactError, InputError
from xray.gallery.vector_index import EmbeddingArray
from xray.images.preprocess import PREPROCESS_VERSION
from xray.mura.fingerprint import compute_digests

PLAN = "plan.json"
"""Name of the plan's file."""


@dataclass(frozen=True)
class Plan:
    """Values that must be the same for all shards of a gallery.

    The contents of the files are checked for each shard, so that a changed file only invalidates its own shard.

    Attributes:
        fingerprint: fingerprint of the paths and labels to index.
        shard_size: records per shard.
    """

    checkpoint: str
    dataset: str
    split: str
    only: str
    fingerprint: str
    shard_size: int


@dataclass(frozen=True)
class Shard:
    """A finished shard: the embeddings of consecutive records, and which of them cannot be read.

    Attributes:
        rows: positions of the readable records, from the start of the dataset.
        embeddings_nD: float32, one for each of `rows`.
        unreadable: dataset path and reason for each unreadable record.
        digests: SHA-256 of the file of each record, as it was read.
    """

    rows: list[int]
    embeddings_nD: EmbeddingArray
    unreadable: list[tuple[str, str]]
    digests: list[str]


@dataclass(frozen=True)
class ShardStore:
    """The folder beside a gallery that collects its shards.

    Attributes:
        folder: `.GALLERY.building`.
    """

    folder: Path

    @classmethod
    def open(cls, out: Path, plan: Plan) -> "ShardStore":
        """Open the store of a gallery's shards: a new one, or the one of a builder that was killed.

        Raises:
            InputError: the folder has an unfinished gallery of another checkpoint, dataset, option or version.
        """
        store = cls(out.with_name(f".{out.name}.building"))
        plan_file = store.folder / PLAN
        if plan_file.exists() and _read_plan(plan_file) != plan:
            raise InputError(
                f"{store.folder} has an unfinished gallery of another checkpoint, dataset or option, or of another "
                "version of this program; finish that one first, or remove the folder."
            )
        store.folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(plan_file) as partial:
            partial.write_bytes(msgspec.json.encode(plan))
        return store

    @property
    def gallery(self) -> Path:
        """Folder beside the shards in which the gallery is assembled and checked before it replaces the old one."""
        return self.folder / "gallery"

    def has(self, number: int, files: Sequence[Path]) -> bool:
        """Return whether a shard is complete and was made from the current files by this version's preprocessing."""
        if not self._file(number).exists():
            return False
        try:
            return self.get(number).digests == compute_digests(files)
        except ArtifactError:
            return False

    def put(self, number: int, shard: Shard) -> None:
        """Write a shard of the gallery atomically.

        Raises:
            NoSpaceError: the disk is full; earlier shards are kept.
        """
        facts = {
            "rows": shard.rows,
            "unreadable": shard.unreadable,
            "digests": shard.digests,
            "preprocess_version": PREPROCESS_VERSION,
        }
        written = {name: msgspec.json.encode(fact).decode() for name, fact in facts.items()}
        with atomic_file(self._file(number)) as partial:
            save_file({"embeddings": shard.embeddings_nD}, partial, written)

    def get(self, number: int) -> Shard:
        """Read a shard of the gallery.

        Raises:
            ArtifactError: the file is damaged or of another version's preprocessing.
        """
        try:
            with safe_open(self._file(number), framework="numpy") as stored:
                facts = stored.metadata()
                if msgspec.json.decode(facts["preprocess_version"]) != PREPROCESS_VERSION:
                    raise ArtifactError(
                        f"{self._file(number)} is of another version; remove it and run the command again."
                    )
                return Shard(
                    msgspec.json.decode(facts["rows"], type=list[int]),
                    np.asarray(stored.get_tensor("embeddings"), np.float32),
                    msgspec.json.decode(facts["unreadable"], type=list[tuple[str, str]]),
                    msgspec.json.decode(facts["digests"], type=list[str]),
                )
        except (SafetensorError, KeyError, TypeError, msgspec.MsgspecError) as error:
            raise ArtifactError(
                f"{self._file(number)} is damaged: {error}; remove it and run the command again."
            ) from error

    def delete(self) -> None:
        """Delete the store's folder with all shards in it."""
        shutil.rmtree(self.folder)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:05d}.safetensors"


def _read_plan(file: Path) -> Plan:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Plan)
    except msgspec.MsgspecError as error:
        raise ArtifactError(f"{file} is damaged ({error}); remove its folder and run the command again.") from error
