"""Searches an archive by QIDO-RS, retrieves files by WADO-RS and stores results by STOW-RS."""

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
from pacs.client.qido_json import InstanceReference, Match, SeriesReference, StudyReference
from pacs.client.wado_response import extract_dicom
from pacs.errors import ArchiveRefusedError, StudyMissingError, TooLargeError
from pacs.multipart import encode_files

MAX_INSTANCE_BYTES = 256 << 20
"""Default size limit of one DICOM file, in bytes; an uncompressed radiograph of 4096 x 4096 pixels has 32 MiB."""
STUDIES_PER_PAGE = 1000
"""Matches requested at a time, so that a response stays far below `MAX_RESPONSE_BYTES`."""
MAX_STUDIES = 10_000_000
"""Maximum number of matches in a search for studies, in case an archive repeats pages endlessly."""
MAX_MATCHES = 10_000
"""Maximum number of matches in a search within a study, far more than a radiography study has."""
ENVELOPE_BYTES = 4 << 10
"""Allowance for the multipart boundaries and the part's header around an instance, in bytes."""
ORIGINAL = 'multipart/related; type="application/dicom"; transfer-syntax=*'
"""Accept header for a file as it is stored, in any transfer syntax, even one that the archive cannot decode."""
DECODED = 'multipart/related; type="application/dicom"'
"""Accept header for a file in Explicit VR Little Endian, the default of PS3.18 8.7.3.5.2."""
PYDICOM_WRITE_ERRORS = (AttributeError, LookupError, NotImplementedError, OSError, TypeError, ValueError, struct.error)
"""Errors of pydicom for data sets that cannot be encoded; their texts contain values, so they are not repeated."""

logger = logging.getLogger(__name__)


class Archive:
    """A blocking client of one archive. Use one for each thread; only `close` may be called from another thread.

    It does not retry: the error type tells the caller whether a retry can help. Every method may raise
    ConfigurationError, ArchiveUnavailableError and ArchiveRefusedError; the constructor raises ConfigurationError.
    """

    def __init__(self, name: str, config: ArchiveConfig) -> None:
        self.name = name
        self._url = config.url.rstrip("/")
        self._timeout = config.timeout_seconds
        self._session = ArchiveSession(name, config)
        self._client = DICOMwebClient(self._url, session=self._session, timeout=self._timeout)
        self._client.set_http_retry_params(retry=False)

    def close(self) -> None:
        """Abort the request to the archive that is in progress and refuse all later ones."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def require_response(self) -> None:
        """Raise ArchiveUnavailableError unless the archive responds to a minimal search; a refusal is a response."""
        try:
            with typed_errors(self.name):
                self._client.search_for_studies(limit=1)
        except ArchiveRefusedError:
            return

    def search_studies(self, query: Mapping[str, str]) -> list[StudyReference]:
        """Return all studies of the archive that match a query such as {"StudyDate": "20260101-"}, by DICOM keyword.

        Studies without a Study Instance UID cannot be retrieved: they are left out, and their number is logged.
        """

        def page(offset: int | None) -> Sequence[Match]:
            found = qido_json.matches_in(
                self._client.search_for_studies(
                    limit=STUDIES_PER_PAGE, offset=offset, fields=["ModalitiesInStudy"], search_filters=dict(query)
                )
            )
            named = [match for match in found if qido_json.has_uid(match, qido_json.STUDY)]
            if len(named) < len(found):
                logger.warning(
                    "Archive %s: %d matches have no Study Instance UID and are left out.",
                    self.name,
                    len(found) - len(named),
                )
            return named

        with typed_errors(self.name):
            return [
                StudyReference.from_match(match)
                for match in self._all_pages(page, qido_json.STUDY, MAX_STUDIES).values()
            ]

    def patient_ids(self, study_uid: str) -> set[str]:
        """Return the Patient IDs that the archive has for the study; empty if it has no such study or no ID."""
        qido_json.require_uid(study_uid)
        with typed_errors(self.name, study_uid):
            found = qido_json.matches_in(
                self._client.search_for_studies(search_filters={"StudyInstanceUID": study_uid})
            )
        # An archive that ignores the filter also returns other studies.
        ours = [match for match in found if qido_json.text_in(match, qido_json.STUDY).strip(" \0") == study_uid]
        return {qido_json.text_in(match, qido_json.PATIENT_ID).strip(" \0") for match in ours} - {""}

    def series(self, study_uid: str) -> list[SeriesReference]:
        """Return all series that the archive has of a study.

        Raises:
            StudyMissingError: the archive has no series of the study.
        """
        qido_json.require_uid(study_uid)

        def page(offset: int | None) -> Sequence[Match]:
            return qido_json.matches_in(self._client.search_for_series(study_uid, offset=offset))

        with typed_errors(self.name, study_uid):
            found = self._all_pages(page, qido_json.SERIES)
        if not found:
            raise StudyMissingError(f"Archive {self.name} has no study {study_uid}.")
        return [
            SeriesReference(study_uid, uid, qido_json.text_in(match, qido_json.MODALITY).strip())
            for uid, match in found.items()
        ]

    def instances(self, study_uid: str) -> list[InstanceReference]:
        """Return all instances that the archive has of a study.

        Raises:
            StudyMissingError: the archive has no series of it.
        """
        return [instance for series in self.series(study_uid) for instance in self._instances_of(series)]

    def radiographs(self, study_uid: str) -> list[InstanceReference]:
        """Return the instances of a study that are, or may be, radiographs according to the archive; may be empty.

        Raises:
            StudyMissingError: the archive has no series of it.
        """
        candidates = [series for series in self.series(study_uid) if series.may_have_radiographs]
        return [each for series in candidates for each in self._instances_of(series) if each.may_be_radiograph]

    def _instances_of(self, series: SeriesReference) -> list[InstanceReference]:
        study_uid, series_uid = series.study_uid, series.series_uid

        def page(offset: int | None) -> Sequence[Match]:
            return qido_json.matches_in(self._client.search_for_instances(study_uid, series_uid, offset=offset))

        with typed_errors(self.name, study_uid):
            found = self._all_pages(page, qido_json.INSTANCE)
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

    def _all_pages(
        self, page: Callable[[int | None], Sequence[Match]], tag: str, limit: int = MAX_MATCHES
    ) -> dict[str, Match]:
        """Return all matches by the UID in `tag`, requesting pages until one has no new match."""
        found: dict[str, Match] = {}
        while len(found) <= limit:
            matches = {qido_json.uid_in(match, tag): match for match in page(len(found) or None)}
            if matches.keys() <= found.keys():  # archives that ignore offsets repeat the first page
                return found
            found.update(matches)
        raise ArchiveRefusedError(f"Archive {self.name} returns more than {limit} matches; narrow the query.")

    def retrieve(self, study_uid: str, max_bytes: int = MAX_INSTANCE_BYTES) -> Iterator[bytes]:
        """Yield each radiograph of a study in the archive in its stored encoding, with one file in memory at a time.

        Each file is requested when the iterator reaches it. The files are not parsed here, because a hostile file may
        crash the parser; worker processes do that.

        Raises:
            StudyMissingError: the archive does not have the study.
            TooLargeError: an instance has more than `max_bytes`.
        """
        for instance in self.radiographs(study_uid):
            yield self.retrieve_instance(instance, max_bytes)

    def retrieve_instance(self, instance: InstanceReference, max_bytes: int = MAX_INSTANCE_BYTES) -> bytes:
        """Return one of the archive's instances as a DICOM file in its stored encoding; raises what `retrieve` does."""
        try:
            with typed_errors(self.name, instance.study_uid):
                return self._retrieve(instance, max_bytes)
        except StudyMissingError:
            raise StudyMissingError(f"Archive {self.name} has no instance {instance.instance_uid}.") from None

    def _retrieve(self, instance: InstanceReference, max_bytes: int, accept: str = ORIGINAL) -> bytes:
        url = str(URI(self._url, instance.study_uid, instance.series_uid, instance.instance_uid))
        try:
            with self._session.body_limit(max_bytes + ENVELOPE_BYTES):
                response = self._session.get(url, headers={"Accept": accept}, timeout=self._timeout)
        except TooLargeError:
            raise TooLargeError(
                f"Archive {self.name}: instance {instance.instance_uid} has more than {max_bytes} bytes."
            ) from None
        response.raise_for_status()
        return extract_dicom(response.headers.get("Content-Type", ""), response.content)

    def has_instances(self, study_uid: str, instance_uids: Collection[str]) -> bool:
        """Return whether searches of the archive find all of these instances in the study."""
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

    def retrieve_decoded(self, instance: InstanceReference, max_bytes: int) -> bytes | None:
        """Return the archive's file of an instance in Explicit VR Little Endian; None if the archive has none.

        Raises:
            TooLargeError: the file has more than `max_bytes`.
        """
        try:
            with typed_errors(self.name, instance.study_uid):
                return self._retrieve(instance, max_bytes, DECODED)
        except StudyMissingError:
            return None

    def store(self, datasets: Sequence[Dataset]) -> None:
        """Encode data sets as DICOM files and store them in the archive; those that it already has are ignored.

        Call `has_instances` to check that they can be found.

        Raises:
            ArchiveRefusedError: the archive did not store an instance, among others; the message has the reason code.
        """
        self.store_files([_as_file(dataset) for dataset in datasets])

    def store_files(self, files: Sequence[bytes]) -> None:
        """Store DICOM files in the archive byte for byte; raises the same errors as `store`."""
        if not files:
            return
        content_type, body = encode_files(files)
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
    """Encode a data set with preamble and complete meta header."""
    buffer = io.BytesIO()
    try:
        dcmwrite(buffer, dataset, enforce_file_format=True)
    except PYDICOM_WRITE_ERRORS as error:
        uid = dataset.get("SOPInstanceUID", "without UID")
        raise ArchiveRefusedError(f"Instance {uid} cannot be encoded as DICOM: {type(error).__name__}.") from None
    return buffer.getvalue()
