"""Embeddings of finished batches on disk, so that a builder that was killed goes on where it stood.

    .GALLERY.building/plan.json          what is being built; another plan never mixes with these shards
    .GALLERY.building/00000.safetensors  the embeddings of one shard of records, and what could not be read

Legend: n readable records of a shard, D embedding.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from xray.artifact import replaced_at_once
from xray.errors import ArtifactError, InputError
from xray.scan import EmbeddingArray

PLAN = "plan.json"


@dataclass(frozen=True)
class Plan:
    """What decides a gallery's content.

    Attributes:
        fingerprint: over the paths and labels to be indexed.
        preprocess_version: of the program that makes the embeddings; 1 where an unfinished gallery records none.
    """

    checkpoint: str
    dataset: str
    split: str
    only: str
    fingerprint: str
    shard_size: int
    preprocess_version: int = 1


@dataclass(frozen=True)
class Shard:
    """One finished stretch of records.

    Attributes:
        rows: which records were read, counted from the start of the dataset.
        embeddings_nD: float32, one for each of `rows`.
        unreadable: dataset path and reason of each record that was not.
    """

    rows: list[int]
    embeddings_nD: EmbeddingArray
    unreadable: list[tuple[str, str]]


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

    def has(self, number: int) -> bool:
        return self._file(number).exists()

    def put(self, number: int, shard: Shard) -> None:
        """Store a shard in one step: it is there whole or not at all."""
        facts = {"rows": msgspec.json.encode(shard.rows), "unreadable": msgspec.json.encode(shard.unreadable)}
        with replaced_at_once(self._file(number)) as partial:
            save_file(
                {"embeddings": shard.embeddings_nD}, partial, {name: text.decode() for name, text in facts.items()}
            )

    def get(self, number: int) -> Shard:
        """Read a shard back.

        Raises:
            ArtifactError: the file is damaged.
        """
        try:
            with safe_open(self._file(number), framework="numpy") as stored:
                facts = stored.metadata()
                return Shard(
                    msgspec.json.decode(facts["rows"], type=list[int]),
                    np.asarray(stored.get_tensor("embeddings"), np.float32),
                    msgspec.json.decode(facts["unreadable"], type=list[tuple[str, str]]),
                )
        except SafetensorError as error:
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
