"""Fetches the new radiographs of an archive's studies, each study while the one before is worked on."""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from index_builder.pseudonyms import Pseudonyms
from pacs.client.archive import Archive
from pacs.client.qido_json import InstanceReference, StudyReference
from pacs.errors import ArchiveRefusedError, ArchiveUnavailableError, PacsError, StudyMissingError

AWAY = Retrying(
    retry=retry_if_exception_type(ArchiveUnavailableError),
    wait=wait_exponential_jitter(initial=1, max=60),
    stop=stop_after_attempt(8),
    reraise=True,
)
"""An archive may be away for two minutes before a crawl ends; what it has gathered stays, and the next one goes on."""
STUCK = Retrying(
    retry=retry_if_exception_type(ArchiveUnavailableError),
    wait=wait_exponential_jitter(initial=1, max=10),
    stop=stop_after_attempt(3),
    reraise=True,
)
"""For one study or radiograph, before the archive is asked whether it is there at all."""
LEFT_OUT = (ArchiveRefusedError, ArchiveUnavailableError, StudyMissingError)
"""What concerns one study or radiograph alone, once the archive is known to answer."""
A = TypeVar("A")
T = TypeVar("T")


class ArchiveGoneError(PacsError):
    """The archive has answered nothing for so long that the crawl ends."""


@dataclass(frozen=True)
class File:
    """A radiograph as the archive has it, under the pseudonym of its UID."""

    instance: str
    data: bytes


@dataclass(frozen=True)
class Visit:
    """A study, or a part of one that has many new radiographs.

    Attributes:
        study: its pseudonym.
        listed: pseudonyms of all radiographs that the archive has of it; None where it does not say.
        files: of those that are new.
        failed: how many new ones the archive did not give.
        missing: whether the study was found by a search, and is not there any more.
    """

    study: str
    listed: Set[str] | None
    files: Sequence[File] = ()
    failed: int = 0
    missing: bool = False


@dataclass(frozen=True)
class Visitor:
    """Fetches from an archive.

    Attributes:
        names: makes the pseudonyms.
        known: those of studies and radiographs that are not fetched.
        at_once: how many files are in memory together.
    """

    archive: Archive
    names: Pseudonyms
    known: Set[str]
    at_once: int

    def visit(self, studies: Iterable[StudyReference]) -> Iterator[Visit]:
        """Raises ArchiveGoneError when the archive is away for longer than anybody waits."""
        for study in studies:
            name = self.names.name(study.study_uid)
            if name in self.known:
                continue
            try:
                found = self._answer(self.archive.radiographs, study.study_uid)
            except StudyMissingError:
                yield Visit(name, frozenset(), missing=True)
            except LEFT_OUT:
                yield Visit(name, None)
            else:
                yield from self._visits(name, found)

    def _visits(self, study: str, found: Sequence[InstanceReference]) -> Iterator[Visit]:
        listed = {self.names.name(each.instance_uid): each for each in found}
        new = [(instance, listed[instance]) for instance in listed.keys() - self.known]
        for start in range(0, max(1, len(new)), self.at_once):
            chosen = new[start : start + self.at_once]
            files = [file for instance, reference in chosen if (file := self._file(instance, reference))]
            yield Visit(study, listed.keys(), files, len(chosen) - len(files))

    def _file(self, instance: str, reference: InstanceReference) -> File | None:
        try:
            return File(instance, self._answer(self.archive.retrieve_instance, reference))
        except LEFT_OUT:
            return None

    def _answer(self, ask: Callable[[A], T], about: A) -> T:
        """What the archive answers.

        Raises:
            ArchiveGoneError: it answers nothing at all, for longer than anybody waits.
            PacsError: it answers, but not to this.
        """
        try:
            return STUCK(ask, about)
        except ArchiveUnavailableError:
            try:
                AWAY(self.archive.require_response)
            except ArchiveUnavailableError as error:
                raise ArchiveGoneError(str(error)) from error
        return ask(about)


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items; each is made, in a thread of its own, while the one before is used."""
    with ThreadPoolExecutor(1) as thread:
        made = thread.submit(next, items, None)
        while (item := made.result()) is not None:
            made = thread.submit(next, items, None)
            yield item
