"""Indexes a hospital's archive: a gallery whose entries are pseudonymous references; `crawl` is the table of contents.

Legend: N entries, K vector.
"""

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from pydicom.datadict import tag_for_keyword
from tqdm import tqdm

from index_builder.crawl_state import CrawlState, IndexedInstance, Origin, open_crawl_state
from index_builder.embed_dicom import DicomEmbedder
from index_builder.embedder import Embedder
from index_builder.fetch import ArchiveGoneError, Fetcher, prefetch
from index_builder.pseudonyms import Pseudonyms
from index_builder.verify import check_gallery, sample_rows
from pacs.client.archive import Archive
from pacs.client.configuration import ArchiveConfig, read_archives
from pacs.errors import ArchiveUnavailableError
from xray.artifact import require_replaceable
from xray.engines.base import DeviceChoice, PrecisionChoice
from xray.engines.registry import load_engine
from xray.errors import DatasetError, InputError
from xray.gallery.entries import UNKNOWN, GalleryEntry
from xray.gallery.gallery import Gallery, GalleryManifest
from xray.gallery.storage import load_gallery, save_gallery
from xray.gallery.vector_index import StorageChoice
from xray.images.decoding.decoder_pool import DecoderPool
from xray.network.checkpoint import load_checkpoint
from xray.predictor import Predictor
from xray.user_folders import data_folder

DECODE_SECONDS = 30.0
"""Time limit for decoding one file; the slowest real radiographs take a few seconds."""


@dataclass(frozen=True)
class CrawlOptions:
    """Index the radiographs of the archive PACS. Run it again at any time: only new radiographs are fetched, and those
    that the archive deleted from a study are removed.

    Entries are pseudonyms that are made with a key; nothing else about a patient is kept. `--delete` removes studies or
    radiographs immediately and permanently.
    """

    pacs: str
    """Name of the archive in the TOML file of archives."""
    checkpoint: Path
    """Checkpoint folder."""
    reference_gallery: Annotated[Path, tyro.conf.arg(aliases=["--like"])]
    """Gallery folder with labeled radiographs and the same checkpoint; its projection is used."""
    out: Path
    """Gallery folder to write; the state of the crawl is kept beside it, in OUT.crawl."""
    archives: Path | None = None
    """TOML file of the hospital's archives."""
    query: tuple[str, ...] = ()
    """Studies to index, as DICOM keywords with values: StudyDate=20260101- ModalitiesInStudy=DX. Default: all."""
    delete: tuple[str, ...] = ()
    """UIDs of studies or radiographs to remove; nothing is fetched in this case."""
    key: Path | None = None
    """File of the key that makes the pseudonyms; created if it is missing. With the key, one can find out which patient
    an entry belongs to. Default: references.key in the user's data folder."""
    device: DeviceChoice = "auto"
    precision: PrecisionChoice = "auto"
    """Precision of the network on a CPU; use `float32` for a gallery that other machines will search."""
    batch: int = 16
    """Maximum number of radiographs in memory, and per forward pass."""
    storage: StorageChoice = "float32"
    """Type of the vectors on disk."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"--batch is {self.batch}; give at least 1.")
        if not self.delete and self.archives is None:
            raise InputError("--archives is missing; give the TOML file that has the archive.")
        if self.delete and self.query:
            raise InputError("--delete fetches nothing; leave out --query.")

    @property
    def state_file(self) -> Path:
        """SQLite file of the crawl's state."""
        return self.out.with_name(f"{self.out.name}.crawl") / "holdings.sqlite"

    @property
    def key_file(self) -> Path:
        """File of the crawl's key. Raises InputError if none is given and the user has no home folder."""
        return self.key or data_folder() / "references.key"

    @property
    def filters(self) -> dict[str, str]:
        """Return the crawl's query as a mapping from DICOM keyword to value.

        Raises:
            InputError: a keyword is unknown or has no value. The message omits values, which may name a patient.
        """
        pairs = [each.partition("=") for each in self.query]
        for keyword, equals, value in pairs:
            if not equals or not value or tag_for_keyword(keyword) is None:
                raise InputError("--query needs DICOM keywords with values, such as StudyDate=20260101-.")
        return {keyword: value for keyword, _, value in pairs}


def crawl(options: CrawlOptions) -> GalleryManifest:
    """Crawl an archive: fetch new radiographs, or delete those that `--delete` names, and write the gallery.

    Raises:
        PacsError: the archive does not respond or refuses the search; the state is kept, and the next crawl continues.
        ArtifactError: the checkpoint or the reference gallery is damaged, or they do not belong together.
        DatasetError: there is no radiograph to index; an existing gallery is removed.
        InputError: the query or the archive's name is wrong, OUT is not a gallery, or its state is of another archive
            or key.
    """
    key_file = options.key_file
    require_replaceable(options.out)
    config = None if options.delete else archive_config(options)
    filters = options.filters
    checkpoint = load_checkpoint(options.checkpoint)
    reference_gallery = load_gallery(options.reference_gallery, checkpoint.manifest.id)
    pseudonyms = Pseudonyms.from_file(key_file)
    origin = Origin(checkpoint.manifest.id, options.pacs, pseudonyms.name(""))
    with open_crawl_state(options.state_file, origin) as state:
        if config is None:
            forget(options.delete, pseudonyms, state)
        else:
            engine = load_engine(checkpoint, options.device, options.precision)
            embedder = Embedder(Predictor.from_artifacts(checkpoint, engine, reference_gallery), options.batch)
            decoders = DecoderPool(os.cpu_count() or 1, DECODE_SECONDS)
            dicom_embedder = DicomEmbedder(embedder, pseudonyms, decoders)
            with Archive(options.pacs, config) as archive:
                asyncio.run(crawl_archive(archive, filters, dicom_embedder, state))
        return write_gallery(options, reference_gallery, state)


def forget(uids: Sequence[str], pseudonyms: Pseudonyms, state: CrawlState) -> None:
    """Carry out a crawl's `--delete`: no crawl will index these studies and radiographs again; print each result.

    They are deleted from the crawl's state.
    """
    for uid in uids:
        deleted = state.forget(pseudonyms.name(uid))
        outcome = f"{deleted} radiographs deleted" if deleted else "NOTHING OF IT WAS HERE; look at the UID"
        print(f"{uid}: {outcome}. No crawl will index it again.")


@dataclass
class CrawlCounts:
    """What one crawl of an archive did, in counts, for the summary that it prints.

    Attributes:
        new: radiographs that were not in the state before.
        gone: radiographs that the archive no longer has.
        failed: radiographs that could not be fetched.
        unlisted: studies whose radiographs could not be searched.
        missing: studies that a search found, but that are no longer there.
    """

    new: int = 0
    gone: int = 0
    failed: int = 0
    unlisted: int = 0
    missing: int = 0

    def print_summary(self, studies: int) -> None:
        """Print the counts that are not zero, for a crawl over a number of studies."""
        print(f"{studies} studies, {self.new} new radiographs, {self.gone} gone")
        if self.missing:
            print(f"{self.missing} studies were found but no longer exist")
        if self.unlisted:
            print(f"{self.unlisted} studies could not be searched; their entries stay until the next crawl")
        if self.failed:
            print(f"{self.failed} radiographs could not be fetched; the next crawl tries again")


async def crawl_archive(
    archive: Archive, filters: Mapping[str, str], dicom_embedder: DicomEmbedder, state: CrawlState
) -> None:
    """Crawl the archive's studies: add new radiographs to the state, and delete those that are gone from them.

    Raises:
        ArchiveUnavailableError: the archive does not respond; the state keeps the radiographs that were fetched.
    """
    batch = dicom_embedder.embedder.batch
    fetcher = Fetcher(archive, dicom_embedder.pseudonyms, state.known_pseudonyms(), batch)
    counts = CrawlCounts()
    try:
        studies = archive.search_studies(filters)
        for study in prefetch(fetcher.fetch(tqdm(studies, desc="crawling", unit="study"))):
            counts.failed += study.failed
            counts.missing += study.missing
            if study.listed is None:
                counts.unlisted += 1
                continue
            instances = await dicom_embedder.embed(study)
            state.put(instances)
            counts.new += len(instances)
            counts.gone += state.keep_only(study.study, study.listed)
    except (ArchiveGoneError, ArchiveUnavailableError) as error:
        raise ArchiveUnavailableError(f"{error} What was fetched is kept; run the same command again.") from error
    finally:
        await dicom_embedder.decoders.close()
    counts.print_summary(len(studies))


def archive_config(options: CrawlOptions) -> ArchiveConfig:
    """Begin a crawl of an archive: return the archive's configuration, from the file of archives.

    Raises:
        InputError: the file has no archive with that name.
    """
    archives = read_archives(options.archives) if options.archives else {}
    if options.pacs not in archives:
        raise InputError(f"{options.archives} has no archive {options.pacs!r}; it has {', '.join(archives) or 'none'}.")
    return archives[options.pacs]


def write_gallery(options: CrawlOptions, reference_gallery: Gallery, state: CrawlState) -> GalleryManifest:
    """End a crawl of an archive: write the gallery of all indexed radiographs, and check that its search is correct.

    Raises:
        DatasetError: there is no radiograph to index; an existing gallery is removed.
    """
    instances = list(state.indexed())
    skipped = state.count_skipped()
    if skipped:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items())
        print(f"{sum(skipped.values())} radiographs are left out: {reasons}")
    if not instances:
        shutil.rmtree(options.out, ignore_errors=True)
        raise DatasetError(f"Nothing of archive {options.pacs} can be indexed, so there is no gallery {options.out}.")
    vectors_NK = np.concatenate([reference_gallery.project(each.embedding_D)[np.newaxis] for each in instances])
    manifest = GalleryManifest(
        checkpoint=reference_gallery.manifest.checkpoint,
        dataset=options.pacs,
        split="archive",
        only="all",
        dimension=vectors_NK.shape[1],
        count=len(instances),
        scope_limit=reference_gallery.manifest.scope_limit,
    )
    entries = [entry_of(options.pacs, each) for each in instances]
    finished = save_gallery(options.out, manifest, entries, vectors_NK, options.storage, reference_gallery.projection)
    gallery = load_gallery(options.out, finished.checkpoint)
    check_gallery(gallery, {row: instances[row].embedding_D for row in sample_rows(gallery)})
    return finished


def entry_of(archive: str, instance: IndexedInstance) -> GalleryEntry:
    """Return the gallery entry of a crawled radiograph; its path is a pseudonymous reference."""
    path = f"{archive}/{instance.study}/{instance.instance}"
    return GalleryEntry(path, instance.body_part or UNKNOWN, UNKNOWN, instance.study, UNKNOWN)
