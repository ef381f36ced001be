"""A gallery to and from its folder: whole or not at all, and verified.

It holds `index.faiss`, `entries.parquet`, `manifest.json` and, where the vectors that are searched are not the
embeddings themselves, `projection.safetensors`.

Legend: N entries, D embedding, K vector.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from xray.artifact import atomic_folder, read_manifest, sha256, verify_checksums, write_manifest
from xray.errors import ArtifactError
from xray.gallery.accelerator import Accelerator
from xray.gallery.files import (
    ENTRIES,
    INDEX,
    GalleryEntry,
    GalleryManifest,
    StorageChoice,
    gpu_index,
    read_entries,
    read_vectors,
    write_entries,
    write_vectors,
)
from xray.gallery.gallery import Gallery, Wanted
from xray.gallery.projection import Projection, read_projection, write_projection
from xray.gallery.scan import EmbeddingArray, Scan
from xray.images.preprocess import PREPROCESS_VERSION

PROJECTION = "projection.safetensors"


def save_gallery(
    folder: Path,
    manifest: GalleryManifest,
    entries: Sequence[GalleryEntry],
    vectors_NK: EmbeddingArray,
    storage: StorageChoice = "float32",
    projection: Projection | None = None,
) -> GalleryManifest:
    """Write the folder whole or not at all, and return the manifest with its checksums.

    Args:
        vectors_NK: finite, of length 1.
        storage: `float32` keeps the vectors as they are. `float16` halves the file; it moves a similarity by less
            than 1e-4, which reorders near ties, and the lengths are mended when the gallery is read.
        projection: what made the vectors of the embeddings, if they are not the embeddings themselves.
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


def load_gallery(folder: Path, checkpoint_id: str, on_gpu: bool = False) -> Gallery:
    """Read and verify a folder; needs up to 5 x N x D bytes of memory, and 4 x N x D on the GPU.

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
    vectors_ND = read_vectors(folder / INDEX)
    expected = manifest.count, manifest.dimension
    if not entries or len(entries) != manifest.count or vectors_ND.shape != expected:
        raise ArtifactError(
            f"{folder} has {len(entries)} entries and {len(vectors_ND)} vectors of {vectors_ND.shape[1]} numbers, but "
            f"its manifest says {expected[0]} of {expected[1]}; build it again, and not empty."
        )
    projection = read_projection(folder / PROJECTION) if PROJECTION in manifest.checksums else None
    scan = Scan.over(vectors_ND)
    accelerator = Accelerator(lambda: gpu_index(vectors_ND), scan) if on_gpu else None
    gallery = Gallery(manifest, entries, scan, accelerator, projection)
    # The first search of a process costs ten times a later one's: nobody shall wait for it.
    gallery.nearest(vectors_ND[0], Wanted(exclude_study=entries[0].study_key))
    return gallery
