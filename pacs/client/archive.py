"""Searches an archive by QIDO-RS, fetches files by WADO-RS and stores finished objects by STOW-RS."""

import io
import logging
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Self

from dicomweb_client import URI, DICOMwebClient
from pydicom import Dataset, dcmwrite

from pacs.client import qido_json
from pacs.client.configuration import ArchiveConfig
from pacs.client.http_session import ArchiveSession, typed_errors
from pacs.client.multipart import only_part, related
from pacs.client.qido_json import InstanceReference, Match, SeriesReference, StudyReference
from pacs.errors import ArchiveRefusedError, StudyMissingError, TooLargeError

MAX_INSTANCE_BYTES = 256 << 20
STUDIES_A_PAGE = 1000
MAX_STUDIES = 10_000_000
MAX_MATCHES = 10_000
"""Of one search within a study; more is no radiography, or an archive that never ends."""
ENVELOPE_BYTES = 4 << 10
"""Around an instance: boundaries and the part's header."""
ORIGINAL = 'multipart/related; type="application/dicom"; transfer-syntax=*'
"""As stored, which may be in a transfer syntax that the archive could not decode."""
DECODED = 'multipart/related; type="application/dicom"'
"""In Explicit VR Little Endian, which PS3.18 8.7.3.5.2 says is what nothing else asks for."""
UNWRITABLE = (AttributeError, LookupError, NotImplementedError, OSError, TypeError, ValueError, struct.error)
"""What pydicom raises for data sets that cannot be written; its texts hold their values."""

logger = logging.getLogger(__name__)


class Archive:
    """Asks one archive, and waits for the answer. One for each thread: only `close` may be called from another.

    Nothing is repeated in here: the errors tell whether that can help, and the caller knows how often. Every method
    may raise ConfigurationError, ArchiveUnavailableError and ArchiveRefusedError, and making one ConfigurationError.
    """

    def __init__(self, name: str, config: ArchiveConfig) -> None:
        self.name = name
        self._url = config.url.rstrip("/")
        self._timeout = config.timeout_seconds
        self._session = ArchiveSession(name, config)
        self._client = DICOMwebClient(self._url, session=self._session, timeout=self._timeout)
        self._client.set_http_retry_params(retry=False)

    def close(self) -> None:
        """End what is being asked, and ask nothing more."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def require_answer(self) -> None:
        """Raises ArchiveUnavailableError if the archive does not answer the plainest search; a refusal is an answer."""
        try:
            with typed_errors(self.name):
                self._client.search_for_studies(limit=1)
        except ArchiveRefusedError:
            return

    def studies(self, query: Mapping[str, str]) -> list[StudyReference]:
        """All studies that match DICOM keywords with values, such as {"StudyDate": "20260101-"}.

        Matches without a Study Instance UID cannot be fetched: they are counted in the log and left out.
        """

        def page(offset: int | None) -> Sequence[Match]:
            found = qido_json.matches_in(
                self._client.search_for_studies(
                    limit=STUDIES_A_PAGE, offset=offset, fields=["ModalitiesInStudy"], search_filters=dict(query)
                )
            )
            named = [match for match in found if qido_json.has_uid(match, qido_json.STUDY)]
            if len(named) < len(found):
                logger.warning(
                    "Archive %s: %d matches name no study and are left out.", self.name, len(found) - len(named)
                )
            return named

        with typed_errors(self.name):
            return [StudyReference.of(match) for match in self._all(page, qido_json.STUDY, MAX_STUDIES).values()]

    def patient_ids(self, study_uid: str) -> set[str]:
        """Under which patient identifiers it has the study; none where it has no such study, or does not say."""
        qido_json.require_uid(study_uid)
        with typed_errors(self.name, study_uid):
            found = qido_json.matches_in(
                self._client.search_for_studies(search_filters={"StudyInstanceUID": study_uid})
            )
        # An archive that ignores the filter answers with other studies, too.
        ours = [match for match in found if qido_json.text_in(match, qido_json.STUDY).strip(" \0") == study_uid]
        return {qido_json.text_in(match, qido_json.PATIENT_ID).strip(" \0") for match in ours} - {""}

    def series(self, study_uid: str) -> list[SeriesReference]:
        """All series of a study.

        Raises:
            StudyMissingError: there are none.
        """
        qido_json.require_uid(study_uid)

        def page(offset: int | None) -> Sequence[Match]:
            return qido_json.matches_in(self._client.search_for_series(study_uid, offset=offset))

        with typed_errors(self.name, study_uid):
            found = self._all(page, qido_json.SERIES)
        if not found:
            raise StudyMissingError(f"Archive {self.name} has no study {study_uid}.")
        return [
            SeriesReference(study_uid, uid, qido_json.text_in(match, qido_json.MODALITY).strip())
            for uid, match in found.items()
        ]

    def instances(self, study_uid: str) -> list[InstanceReference]:
        """The instances of a study.

        Raises:
            StudyMissingError: the archive has no series of it at all.
        """
        return [instance for series in self.series(study_uid) for instance in self._instances_of(series)]

    def radiographs(self, study_uid: str) -> list[InstanceReference]:
        """The instances of a study that are radiographs, or may be as far as the archive says; there may be none.

        Raises:
            StudyMissingError: the archive has no series of it at all.
        """
        wanted = [series for series in self.series(study_uid) if series.may_have_radiographs]
        return [each for series in wanted for each in self._instances_of(series) if each.may_be_radiograph]

    def _instances_of(self, series: SeriesReference) -> list[InstanceReference]:
        study_uid, series_uid = series.study_uid, series.series_uid

        def page(offset: int | None) -> Sequence[Match]:
            return qido_json.matches_in(self._client.search_for_instances(study_uid, series_uid, offset=offset))

        with typed_errors(self.name, study_uid):
            found = self._all(page, qido_json.INSTANCE)
        return [
            InstanceReference(
                study_uid,
                series_uid,
                uid,
                qido_json.text_in(match, qido_json.SOP_CLASS).strip(" \0"),
                series.modality or qido_json.text_in(match, qido_json.MODALITY).strip(),
            )
            for uid, match in found.items()
        ]

    def _all(
        self, page: Callable[[int | None], Sequence[Match]], tag: str, most: int = MAX_MATCHES
    ) -> dict[str, Match]:
        """Matches by the UID in `tag`, page after page, until one brings nothing new."""
        found: dict[str, Match] = {}
        while len(found) <= most:
            matches = {qido_json.uid_in(match, tag): match for match in page(len(found) or None)}
            if matches.keys() <= found.keys():  # an archive that ignores offsets repeats itself
                return found
            found.update(matches)
        raise ArchiveRefusedError(f"Archive {self.name} finds more than {most}, or never ends.")

    def retrieve(self, study_uid: str, max_bytes: int = MAX_INSTANCE_BYTES) -> Iterator[bytes]:
        """Each radiograph of a study as a DICOM file, as it was stored; one at a time in memory.

        Nothing is asked before the first is taken, and an error comes in place of the instance that it concerns. The
        bytes are not looked at: reading a file is for a process that may fail.

        Raises:
            StudyMissingError: the archive has no such study.
            ArchiveRefusedError: among others, an instance is larger than `max_bytes`.
        """
        for instance in self.radiographs(study_uid):
            yield self.file(instance, max_bytes)

    def file(self, instance: InstanceReference, max_bytes: int = MAX_INSTANCE_BYTES) -> bytes:
        """One instance as a DICOM file, as it was stored; raises what `retrieve` does."""
        try:
            with typed_errors(self.name, instance.study_uid):
                return self._retrieved(instance, max_bytes)
        except StudyMissingError:
            raise StudyMissingError(f"Archive {self.name} has no instance {instance.instance_uid}.") from None

    def _retrieved(self, instance: InstanceReference, max_bytes: int, accept: str = ORIGINAL) -> bytes:
        url = str(URI(self._url, instance.study_uid, instance.series_uid, instance.instance_uid))
        try:
            with self._session.up_to(max_bytes + ENVELOPE_BYTES):
                response = self._session.get(url, headers={"Accept": accept}, timeout=self._timeout)
        except TooLargeError:
            raise TooLargeError(
                f"Archive {self.name}: instance {instance.instance_uid} has more than {max_bytes} bytes."
            ) from None
        response.raise_for_status()
        return only_part(response.headers.get("Content-Type", ""), response.content)

    def has(self, study_uid: str, instance_uids: Collection[str]) -> bool:
        """Whether searches find every one of these instances in that study."""
        try:
            return all(self._finds(study_uid, uid) for uid in instance_uids)
        except StudyMissingError:
            return False

    def _finds(self, study_uid: str, instance_uid: str) -> bool:
        qido_json.require_uid(study_uid)
        with typed_errors(self.name, study_uid):
            found = qido_json.matches_in(
                self._client.search_for_instances(study_uid, search_filters={"SOPInstanceUID": instance_uid})
            )
            return any(qido_json.text_in(match, qido_json.INSTANCE).strip(" \0") == instance_uid for match in found)

    def given(self, instance: InstanceReference, max_bytes: int) -> bytes | None:
        """The file that it gives out under a UID, which need not be what was sent; None where it gives out none.

        Raises:
            ArchiveRefusedError: among others, the file has more than `max_bytes`.
        """
        try:
            with typed_errors(self.name, instance.study_uid):
                return self._retrieved(instance, max_bytes, DECODED)
        except StudyMissingError:
            return None

    def store(self, datasets: Sequence[Dataset]) -> None:
        """Send finished objects. Those that the archive has already do no harm; whether it has them now tells `has`.

        Raises:
            ArchiveRefusedError: among others, it failed to store one; the message holds the reason code.
        """
        self.send([_as_file(dataset) for dataset in datasets])

    def send(self, files: Sequence[bytes]) -> None:
        """Send DICOM files byte for byte; raises what `store` does."""
        if not files:
            return
        content_type, body = related(files)
        with typed_errors(self.name):
            headers = {"Content-Type": content_type}
            response = self._session.post(f"{self._url}/studies", body, headers=headers, timeout=self._timeout)
            failures = qido_json.failures_in(response.content)
            refusals = [str(failure) for failure in failures if not failure.is_duplicate]
            if refusals:
                raise ArchiveRefusedError(f"Archive {self.name} did not store {', '.join(refusals)}.")
            if not failures:
                response.raise_for_status()


def _as_file(dataset: Dataset) -> bytes:
    """With preamble and complete meta header."""
    buffer = io.BytesIO()
    try:
        dcmwrite(buffer, dataset, enforce_file_format=True)
    except UNWRITABLE as error:
        uid = dataset.get("SOPInstanceUID", "without UID")
        raise ArchiveRefusedError(f"Instance {uid} cannot be written as DICOM: {type(error).__name__}.") from None
    return buffer.getvalue()
