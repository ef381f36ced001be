"""Keeps the embeddings of finished batches on disk, so that a builder that was killed goes on where it stood.

    .GALLERY.building/plan.json          what is being built; another plan never mixes with these shards
    .GALLERY.building/00000.safetensors  the embeddings of one shard of records, and what could not be read

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

from xray.artifact import replaced_at_once
from xray.errors import ArtifactError, InputError
from xray.gallery.vector_index import EmbeddingArray
from xray.images.preprocess import PREPROCESS_VERSION
from xray.mura.fingerprint import digests

PLAN = "plan.json"


@dataclass(frozen=True)
class Plan:
    """What decides which shards a gallery has; `fingerprint` is over the paths and labels to be indexed.

    What the files hold is noted in each shard, so that a file that changes costs its own shard only.
    """

    checkpoint: str
    dataset: str
    split: str
    only: str
    fingerprint: str
    shard_size: int


@dataclass(frozen=True)
class Shard:
    """One finished stretch of records.

    Attributes:
        rows: which records were read, counted from the start of the dataset.
        embeddings_nD: float32, one for each of `rows`.
        unreadable: dataset path and reason of each record that was not.
        digests: SHA-256 of the file of each record, as it was read.
    """

    rows: list[int]
    embeddings_nD: EmbeddingArray
    unreadable: list[tuple[str, str]]
    digests: list[str]


@dataclass(frozen=True)
class Workplace:
    """The folder beside the gallery in which its shards gather."""

    folder: Path

    @classmethod
    def open(cls, out: Path, plan: Plan) -> "Workplace":
        """Enter the workplace of a gallery, new or left behind by a killed builder.

        Raises:
            InputError: an unfinished gallery of another checkpoint, dataset, option or version lies there.
        """
        place = cls(out.with_name(f".{out.name}.building"))
        stored = place.folder / PLAN
        if stored.exists() and _read_plan(stored) != plan:
            raise InputError(
                f"{place.folder} holds an unfinished gallery of another checkpoint, dataset or option, or of another "
                "version of this program; finish that one first, or remove the folder."
            )
        place.folder.mkdir(parents=True, exist_ok=True)
        with replaced_at_once(stored) as partial:
            partial.write_bytes(msgspec.json.encode(plan))
        return place

    @property
    def gallery(self) -> Path:
        """Where the gallery is put together and checked before it takes its place."""
        return self.folder / "gallery"

    def has(self, number: int, files: Sequence[Path]) -> bool:
        """Whether a shard is there, whole, and made of these files as they are now, by this version's preprocessing."""
        if not self._file(number).exists():
            return False
        try:
            return self.get(number).digests == digests(files)
        except ArtifactError:
            return False

    def put(self, number: int, shard: Shard) -> None:
        """Store a shard in one step: it is there whole or not at all.

        Raises:
            NoSpaceError: the disk is full; the shards that are there are kept.
        """
        facts = {
            "rows": shard.rows,
            "unreadable": shard.unreadable,
            "digests": shard.digests,
            "preprocess_version": PREPROCESS_VERSION,
        }
        written = {name: msgspec.json.encode(fact).decode() for name, fact in facts.items()}
        with replaced_at_once(self._file(number)) as partial:
            save_file({"embeddings": shard.embeddings_nD}, partial, written)

    def get(self, number: int) -> Shard:
        """Read a shard back.

        Raises:
            ArtifactError: the file is damaged or of another version's preprocessing.
        """
        try:
            with safe_open(self._file(number), framework="numpy") as stored:
                facts = stored.metadata()
                if msgspec.json.decode(facts["preprocess_version"]) != PREPROCESS_VERSION:
                    raise ArtifactError(f"{self._file(number)} is of another version; remove it and start again.")
                return Shard(
                    msgspec.json.decode(facts["rows"], type=list[int]),
                    np.asarray(stored.get_tensor("embeddings"), np.float32),
                    msgspec.json.decode(facts["unreadable"], type=list[tuple[str, str]]),
                    msgspec.json.decode(facts["digests"], type=list[str]),
                )
        except (SafetensorError, KeyError, TypeError, msgspec.MsgspecError) as error:
            raise ArtifactError(f"{self._file(number)} is damaged: {error}; remove it and start again.") from error

    def clear(self) -> None:
        shutil.rmtree(self.folder)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:05d}.safetensors"


def _read_plan(file: Path) -> Plan:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Plan)
    except msgspec.MsgspecError as error:
        raise ArtifactError(f"{file} is damaged ({error}); remove its folder and start again.") from error
