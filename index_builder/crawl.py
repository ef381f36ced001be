"""A hospital's archive in, a gallery of pseudonymous references out; `crawl` is the table of contents.

Legend: N entries, K vector.
"""

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.datadict import tag_for_keyword
from tqdm import tqdm

from index_builder.crawl_state import Held, Holdings, Origin, opened
from index_builder.embed_dicom import Reader
from index_builder.embedder import Embedder
from index_builder.fetch import ArchiveGoneError, Visitor, one_ahead
from index_builder.pseudonyms import Pseudonyms
from index_builder.verify import check_gallery, sampled_rows
from pacs.client.archive import Archive
from pacs.client.configuration import ArchiveConfig, read_archives
from pacs.errors import ArchiveUnavailableError
from xray.artifact import require_replaceable
from xray.engines.engine import DeviceChoice, PrecisionChoice, load_engine
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
"""For one file, at most."""


@dataclass(frozen=True)
class CrawlOptions:
    """Index the radiographs of the archive PACS, or go on with it: only what is new is fetched.

    Entries are references under a key, and nothing of a patient is kept. Run it again at any time: what the archive
    deleted from a study goes. `--delete` removes studies or radiographs at once, and for good.
    """

    pacs: str
    """Name of the archive in the file of archives."""
    checkpoint: Path
    """Checkpoint folder whose network makes the embeddings."""
    like: Path
    """Gallery folder of labelled radiographs and the same checkpoint: its projection and its scope are taken over."""
    out: Path
    """Gallery folder to write; what is known of the archive is kept beside it, in OUT.crawl."""
    archives: Path | None = None
    """TOML file of the hospital's archives."""
    query: tuple[str, ...] = ()
    """Which studies: DICOM keywords with values, such as StudyDate=20260101- ModalitiesInStudy=DX; all if not given."""
    delete: tuple[str, ...] = ()
    """UIDs of studies or radiographs that are to go, in place of a crawl."""
    key: Path = field(default_factory=lambda: data_folder() / "references.key")
    """File of the key that makes the references; made when missing. Whoever has it can tell whose they are."""
    device: DeviceChoice = "auto"
    precision: PrecisionChoice = "auto"
    """The network's arithmetic on a CPU; `float32` for a gallery that other machines are to search."""
    batch: int = 16
    """Radiographs in memory at once, and per forward pass."""
    storage: StorageChoice = "float32"
    """Of the vectors on disk."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"--batch is {self.batch}; give at least 1.")
        if not self.delete and self.archives is None:
            raise InputError("--archives is missing; give the TOML file that has the archive.")
        if self.delete and self.query:
            raise InputError("--delete crawls nothing; leave out --query.")

    @property
    def holdings(self) -> Path:
        return self.out.with_name(f"{self.out.name}.crawl") / "holdings.sqlite"

    @property
    def filters(self) -> dict[str, str]:
        """The query by keyword. Raises InputError, without any value: it may name a patient."""
        pairs = [each.partition("=") for each in self.query]
        for keyword, equals, value in pairs:
            if not equals or not value or tag_for_keyword(keyword) is None:
                raise InputError("--query needs DICOM keywords with values, such as StudyDate=20260101-.")
        return {keyword: value for keyword, _, value in pairs}


def crawl(options: CrawlOptions) -> GalleryManifest:
    """Crawl the archive, or delete from what is known of it, and write the gallery anew.

    Raises:
        PacsError: the archive is away or refuses to be searched; what was gathered stays, and the next crawl goes on.
        ArtifactError: the checkpoint or the gallery to be like is damaged, or they do not belong together.
        DatasetError: there is no radiograph to index; a gallery that is there was removed.
        InputError: the query or the archive's name is none, OUT is no gallery, or its holdings are another archive's or
            key's.
    """
    require_replaceable(options.out)
    config, filters = None if options.delete else config_of(options), options.filters
    checkpoint = load_checkpoint(options.checkpoint)
    like = load_gallery(options.like, checkpoint.manifest.id)
    names = Pseudonyms.of_file(options.key)
    with opened(options.holdings, Origin(checkpoint.manifest.id, options.pacs, names.name(""))) as holdings:
        if config is None:
            withdraw(options.delete, names, holdings)
        else:
            engine = load_engine(checkpoint, options.device, options.precision)
            embedder = Embedder(Predictor(checkpoint.manifest, engine), options.batch)
            reader = Reader(embedder, like, names, DecoderPool(os.cpu_count() or 1, DECODE_SECONDS))
            with Archive(options.pacs, config) as archive:
                asyncio.run(gather(archive, filters, reader, holdings))
        return assemble(options, like, holdings)


def withdraw(uids: Sequence[str], names: Pseudonyms, holdings: Holdings) -> None:
    """Delete studies and radiographs, and say of each UID whether anything of it was here."""
    for uid in uids:
        gone = holdings.withdraw(names.name(uid))
        found = f"{gone} radiographs deleted" if gone else "NOTHING OF IT WAS HERE; look at the UID"
        print(f"{uid}: {found}. No crawl will take it in again.")


@dataclass
class Tally:
    """What a crawl has met with: radiographs that are new, gone or could not be had, and studies."""

    new: int = 0
    gone: int = 0
    failed: int = 0
    unlisted: int = 0
    missing: int = 0

    def tell(self, studies: int) -> None:
        print(f"{studies} studies, {self.new} new radiographs, {self.gone} gone")
        if self.missing:
            print(f"{self.missing} studies were found and are not there any more")
        if self.unlisted:
            print(f"{self.unlisted} studies could not be searched; what is held of them stays until the next crawl")
        if self.failed:
            print(f"{self.failed} radiographs could not be fetched, and are tried again by the next crawl")


async def gather(archive: Archive, filters: Mapping[str, str], reader: Reader, holdings: Holdings) -> None:
    """Take in what is new in the archive, and drop what has gone from its studies."""
    visitor = Visitor(archive, reader.names, holdings.names(), reader.embedder.batch)
    tally = Tally()
    try:
        studies = archive.search_studies(filters)
        for visit in one_ahead(visitor.visit(tqdm(studies, desc="crawling", unit="study"))):
            tally.failed, tally.missing = tally.failed + visit.failed, tally.missing + visit.missing
            if visit.listed is None:
                tally.unlisted += 1
                continue
            seen = await reader.read(visit)
            holdings.put(seen)
            tally.new += len(seen)
            tally.gone += holdings.keep_only(visit.study, visit.listed)
    except (ArchiveGoneError, ArchiveUnavailableError) as error:
        raise ArchiveUnavailableError(f"{error} What was gathered stays; run the same command again.") from error
    finally:
        await reader.apart.close()
    tally.tell(len(studies))


def config_of(options: CrawlOptions) -> ArchiveConfig:
    """Raises InputError if the file of archives has none of that name."""
    archives = read_archives(options.archives) if options.archives else {}
    if options.pacs not in archives:
        raise InputError(f"{options.archives} has no archive {options.pacs!r}; it has {', '.join(archives) or 'none'}.")
    return archives[options.pacs]


def assemble(options: CrawlOptions, like: Gallery, holdings: Holdings) -> GalleryManifest:
    """Write the gallery of all that is held, and prove that it answers rightly."""
    held = list(holdings.held())
    left_out = holdings.left_out()
    if left_out:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        print(f"{sum(left_out.values())} radiographs are left out: {reasons}")
    if not held:
        shutil.rmtree(options.out, ignore_errors=True)
        raise DatasetError(f"Nothing of archive {options.pacs} is to be indexed; there is no gallery {options.out}.")
    vectors_NK = np.concatenate([like.project(each.embedding_D)[np.newaxis] for each in held])
    manifest = GalleryManifest(
        checkpoint=like.manifest.checkpoint,
        dataset=options.pacs,
        split="archive",
        only="all",
        dimension=vectors_NK.shape[1],
        count=len(held),
        scope_limit=like.manifest.scope_limit,
    )
    entries = [entry_of(options.pacs, each) for each in held]
    finished = save_gallery(options.out, manifest, entries, vectors_NK, options.storage, like.projection)
    gallery = load_gallery(options.out, finished.checkpoint)
    check_gallery(gallery, {row: held[row].embedding_D for row in sampled_rows(gallery)})
    return finished


def entry_of(archive: str, held: Held) -> GalleryEntry:
    path = f"{archive}/{held.study}/{held.instance}"
    return GalleryEntry(path, held.body_part or UNKNOWN, UNKNOWN, held.study, UNKNOWN)
