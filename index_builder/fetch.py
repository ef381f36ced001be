"""Fetches the new radiographs of an archive's studies; while one study is embedded, the next one is fetched."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from index_builder.pseudonyms import Pseudonyms
from pacs.client.archive import Archive
from pacs.client.qido_json import InstanceReference, StudyReference
from pacs.errors import ArchiveRefusedError, ArchiveUnavailableError, PacsError, StudyMissingError

ARCHIVE_RETRY = Retrying(
    retry=retry_if_exception_type(ArchiveUnavailableError),
    wait=wait_exponential_jitter(initial=1, max=60),
    stop=stop_after_attempt(8),
    reraise=True,
)
"""Retry policy for an archive that does not respond: about two minutes, which covers a restart. After that, the crawl
ends and keeps its state, and the next crawl continues."""
REQUEST_RETRY = Retrying(
    retry=retry_if_exception_type(ArchiveUnavailableError),
    wait=wait_exponential_jitter(initial=1, max=10),
    stop=stop_after_attempt(3),
    reraise=True,
)
"""Retry policy for one request, before the crawler checks whether the archive responds at all."""
REQUEST_ERRORS = (ArchiveRefusedError, ArchiveUnavailableError, StudyMissingError)
"""Errors that affect only one study or radiograph if the archive responds to other requests."""
A = TypeVar("A")
T = TypeVar("T")


class ArchiveGoneError(PacsError):
    """The archive to fetch from has not responded for so long that the crawl ends."""


@dataclass(frozen=True)
class FetchedFile:
    """A fetched radiograph in the form that the archive sent.

    Attributes:
        instance: pseudonym of its UID.
    """

    instance: str
    data: bytes


@dataclass(frozen=True)
class FetchedStudy:
    """A study that was fetched for a gallery, or a part of one that has many new radiographs.

    Attributes:
        study: pseudonym of the study.
        listed: pseudonyms of all radiographs that the archive has of the study; None if the search for them failed.
        files: the new radiographs.
        failed: number of new radiographs that the archive did not send.
        missing: whether a search found the study, but the archive no longer has it.
    """

    study: str
    listed: Set[str] | None
    files: Sequence[FetchedFile] = ()
    failed: int = 0
    missing: bool = False


@dataclass(frozen=True)
class Fetcher:
    """Fetches an archive's new radiographs for a crawl.

    Attributes:
        known: pseudonyms of studies and radiographs that are not fetched.
        max_files: maximum number of files in memory.
    """

    archive: Archive
    pseudonyms: Pseudonyms
    known: Set[str]
    max_files: int

    def fetch(self, studies: Iterable[StudyReference]) -> Iterator[FetchedStudy]:
        """Fetch the new radiographs of each study from the archive.

        Raises:
            ArchiveGoneError: the archive did not respond for longer than `ARCHIVE_RETRY` waits.
        """
        for study in studies:
            pseudonym = self.pseudonyms.name(study.study_uid)
            if pseudonym in self.known:
                continue
            try:
                found = self._request(self.archive.radiographs, study.study_uid)
            except StudyMissingError:
                yield FetchedStudy(pseudonym, frozenset(), missing=True)
            except REQUEST_ERRORS:
                yield FetchedStudy(pseudonym, None)
            else:
                yield from self._fetch_study(pseudonym, found)

    def _fetch_study(self, study: str, found: Sequence[InstanceReference]) -> Iterator[FetchedStudy]:
        listed = {self.pseudonyms.name(each.instance_uid): each for each in found}
        new = [(instance, listed[instance]) for instance in listed.keys() - self.known]
        for start in range(0, max(1, len(new)), self.max_files):
            chosen = new[start : start + self.max_files]
            files = [file for instance, reference in chosen if (file := self._fetch_file(instance, reference))]
            yield FetchedStudy(study, listed.keys(), files, len(chosen) - len(files))

    def _fetch_file(self, instance: str, reference: InstanceReference) -> FetchedFile | None:
        try:
            return FetchedFile(instance, self._request(self.archive.retrieve_instance, reference))
        except REQUEST_ERRORS:
            return None

    def _request(self, ask: Callable[[A], T], about: A) -> T:
        """Send a request to the archive, with retries.

        Raises:
            ArchiveGoneError: the archive does not respond at all for longer than `ARCHIVE_RETRY` waits.
            PacsError: the archive responds, but not to this request.
        """
        try:
            return REQUEST_RETRY(ask, about)
        except ArchiveUnavailableError:
            try:
                ARCHIVE_RETRY(self.archive.require_response)
            except ArchiveUnavailableError as error:
                raise ArchiveGoneError(str(error)) from error
        return ask(about)


def prefetch(items: Iterator[T]) -> Iterator[T]:
    """Fetch an archive's studies ahead: a thread fetches the next one while the caller embeds the current one.

    It yields the same items.
    """
    with ThreadPoolExecutor(1) as thread:
        pending = thread.submit(next, items, None)
        while (item := pending.result()) is not None:
            pending = thread.submit(next, items, None)
            yield item
