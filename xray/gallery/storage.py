"""Writes a gallery to its folder atomically, and loads and verifies it.

A folder has `index.faiss`, `entries.parquet`, `manifest.json` and, if the vectors are not the embeddings themselves,
`projection.safetensors`.

Legend: N entries, K numbers of a vector.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from xray.artifact import atomic_folder, read_manifest, sha256, verify_checksums, write_manifest
from xray.errors import ArtifactError
from xray.gallery.entries import GalleryEntry, read_entries, write_entries
from xray.gallery.faiss_index import FaissIndex, read_vectors, write_vectors
from xray.gallery.gallery import Gallery, GalleryManifest, NeighborQuery
from xray.gallery.projection import Projection, read_projection, write_projection
from xray.gallery.vector_index import EmbeddingArray, StorageChoice, VectorIndex
from xray.images.preprocess import PREPROCESS_VERSION

ENTRIES = "entries.parquet"
INDEX = "index.faiss"
PROJECTION = "projection.safetensors"

VECTOR_INDEXES: Mapping[str, Callable[[EmbeddingArray, bool], VectorIndex]] = {
    "faiss": FaissIndex,
}
"""The function that builds each index, by name, from vectors (N, K) and whether to use the GPU."""
DEFAULT_INDEX = "faiss"


def save_gallery(
    folder: Path,
    manifest: GalleryManifest,
    entries: Sequence[GalleryEntry],
    vectors_NK: EmbeddingArray,
    storage: StorageChoice = "float32",
    projection: Projection | None = None,
) -> GalleryManifest:
    """Write a gallery to its folder atomically and return the manifest with its checksums.

    Args:
        vectors_NK: finite vectors of length 1.
        storage: `float32` keeps the vectors as they are. `float16` halves the file; it moves a similarity by less
            than 1e-4, which reorders near ties, and the lengths are restored when the gallery is read.
        projection: projection from embeddings to the vectors; None if the vectors are the embeddings.
    """
    with atomic_folder(folder) as partial:
        write_entries(partial / ENTRIES, entries)
        write_vectors(partial / INDEX, vectors_NK, storage)
        if projection is not None:
            write_projection(partial / PROJECTION, projection)
        checksums = {file.name: sha256(file) for file in sorted(partial.iterdir())}
        finished = replace(manifest, checksums=checksums)
        write_manifest(partial, finished)
    return finished


def load_gallery(folder: Path, checkpoint_id: str, on_gpu: bool = False, index: str = DEFAULT_INDEX) -> Gallery:
    """Read and verify a gallery's folder. The vectors take 4 x N x K bytes of memory, twice that while being read.

    Args:
        on_gpu: whether to keep a copy of the vectors on the GPU, for queries without restrictions.
        index: name in `VECTOR_INDEXES` of the index to use.

    Raises:
        ArtifactError: a file is missing or damaged, or the gallery is empty, belongs to another checkpoint or was made
            of other canvases.
    """
    manifest = read_manifest(folder, GalleryManifest)
    verify_checksums(folder, {INDEX: "", ENTRIES: "", **manifest.checksums})
    if manifest.checkpoint != checkpoint_id:
        raise ArtifactError(
            f"{folder} was built with checkpoint {manifest.checkpoint}, not {checkpoint_id}; build it again."
        )
    if manifest.preprocess_version != PREPROCESS_VERSION:
        raise ArtifactError(
            f"{folder} was built by a version of this program that turns files into other canvases (preprocessing "
            f"{manifest.preprocess_version}, not {PREPROCESS_VERSION}); build it again with `python -m index_builder`."
        )
    entries = read_entries(folder / ENTRIES)
    vectors_NK = read_vectors(folder / INDEX)
    expected = manifest.count, manifest.dimension
    if not entries or len(entries) != manifest.count or vectors_NK.shape != expected:
        raise ArtifactError(
            f"{folder} has {len(entries)} entries and {len(vectors_NK)} vectors of {vectors_NK.shape[1]} numbers, but "
            f"its manifest says {expected[0]} of {expected[1]}; build it again, and not empty."
        )
    projection = read_projection(folder / PROJECTION) if PROJECTION in manifest.checksums else None
    gallery = Gallery(manifest, entries, VECTOR_INDEXES[index](vectors_NK, on_gpu), projection)
    # The first search of a process takes ten times as long as later ones, so do one before any request arrives.
    gallery.search_vector(vectors_NK[0], NeighborQuery(exclude_study=entries[0].study_key))
    return gallery
