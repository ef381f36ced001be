"""An archive's studies in, the radiographs of each that are new out, fetched while those before are worked on."""

from collections.abc import Iterable, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from pacs.archive import Archive
from pacs.errors import ArchiveRefusedError, ArchiveUnavailableError, StudyMissingError
from pacs.pseudonyms import Pseudonyms
from pacs.references import InstanceReference, StudyReference

PATIENT = Retrying(
    retry=retry_if_exception_type(ArchiveUnavailableError),
    wait=wait_exponential_jitter(initial=1, max=60),
    stop=stop_after_attempt(8),
    reraise=True,
)
"""An archive may be away for two minutes before a crawl ends; what it has gathered stays, and the next one goes on."""
T = TypeVar("T")


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
        listed: pseudonyms of all radiographs that the archive has of it.
        files: of those that are new.
        failed: how many new ones the archive did not give.
    """

    study: str
    listed: Set[str]
    files: Sequence[File]
    failed: int = 0


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
        """Raises ArchiveUnavailableError when the archive is away for longer than anybody waits."""
        for study in studies:
            name = self.names.name(study.study_uid)
            if name in self.known:
                continue
            listed = {self.names.name(each.instance_uid): each for each in self._instances(study)}
            new = [(instance, listed[instance]) for instance in listed.keys() - self.known]
            for start in range(0, max(1, len(new)), self.at_once):
                chosen = new[start : start + self.at_once]
                files = [file for instance, reference in chosen if (file := self._file(instance, reference))]
                yield Visit(name, listed.keys(), files, len(chosen) - len(files))

    def _instances(self, study: StudyReference) -> list[InstanceReference]:
        try:
            return PATIENT(self.archive.radiographs, study.study_uid)
        except StudyMissingError:  # deleted since it was found
            return []

    def _file(self, instance: str, reference: InstanceReference) -> File | None:
        try:
            return File(instance, PATIENT(self.archive.file, reference))
        except (ArchiveRefusedError, StudyMissingError):
            return None


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items; each is made, in a thread of its own, while the one before is used."""
    with ThreadPoolExecutor(1) as thread:
        made = thread.submit(next, items, None)
        while (item := made.result()) is not None:
            made = thread.submit(next, items, None)
            yield item
