"""Questions to an archive and finished objects go in, references, whole files or typed errors come out."""

import io
import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Self

import requests
from dicomweb_client import URI, DICOMwebClient
from pydicom import Dataset, dcmread, dcmwrite

from pacs import references
from pacs.configuration import ArchiveConfig
from pacs.errors import ArchiveRefusedError, StudyMissingError
from pacs.multipart import only_part
from pacs.proof import proof_of
from pacs.references import InstanceReference, Match, SeriesReference, StudyReference
from pacs.session import ArchiveSession, typed_errors
from xray.dicom_tags import MODALITIES as RADIOGRAPHS

MAX_INSTANCE_BYTES = 256 << 20
STUDIES_A_PAGE = 1000
MAX_STUDIES = 10_000_000
MAX_MATCHES = 10_000
"""Of one search within a study; more is no radiography, or an archive that never ends."""
CHUNK_BYTES = 1 << 20
ENVELOPE_BYTES = 4 << 10
"""Around an instance: boundaries and the part's header."""
WHOLE_BODY_BYTES = 1 << 62
"""As dicomweb_client's chunk size: it then sends a length instead of chunks, which some gateways refuse."""
ORIGINAL = 'multipart/related; type="application/dicom"; transfer-syntax=*'
"""As stored, which may be in a transfer syntax that the archive could not decode."""
DECODED = 'multipart/related; type="application/dicom"'
"""In Explicit VR Little Endian, which PS3.18 8.7.3.5.2 says is what nothing else asks for."""
SPARE_BYTES = 64 << 10
"""What an archive may add to an object that is our own."""
UNWRITABLE = (AttributeError, LookupError, NotImplementedError, OSError, TypeError, ValueError, struct.error)
"""What pydicom raises for data sets that cannot be written; its texts hold their values."""


class Archive:
    """Asks one archive, and waits for the answer. One for each thread: its session is not made for two.

    Nothing is repeated in here: the errors tell whether that can help, and the caller knows how often. Every method
    may raise ConfigurationError, ArchiveUnavailableError and ArchiveRefusedError, and making one ConfigurationError.
    """

    def __init__(self, name: str, config: ArchiveConfig) -> None:
        self.name = name
        self._url = config.url.rstrip("/")
        self._timeout = config.timeout_seconds
        self._session = ArchiveSession(name, config)
        self._client = DICOMwebClient(
            self._url, session=self._session, timeout=self._timeout, chunk_size=WHOLE_BODY_BYTES
        )
        self._client.set_http_retry_params(retry=False)

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def studies(self, query: Mapping[str, str]) -> list[StudyReference]:
        """All studies that match DICOM keywords with values, such as {"StudyDate": "20260101-"}."""

        def page(offset: int | None) -> Sequence[Match]:
            return self._client.search_for_studies(
                limit=STUDIES_A_PAGE, offset=offset, fields=["ModalitiesInStudy"], search_filters=dict(query)
            )

        with typed_errors(self.name):
            return [StudyReference.of(match) for match in self._all(page, references.STUDY, MAX_STUDIES).values()]

    def series(self, study_uid: str) -> list[SeriesReference]:
        """All series of a study.

        Raises:
            StudyMissingError: there are none.
        """
        references.require_uid(study_uid)
        with typed_errors(self.name, study_uid):
            found = self._all(
                lambda offset: self._client.search_for_series(study_uid, offset=offset), references.SERIES
            )
        if not found:
            raise StudyMissingError(f"Archive {self.name} has no study {study_uid}.")
        return [
            SeriesReference(study_uid, uid, references.text_in(match, references.MODALITY))
            for uid, match in found.items()
        ]

    def instances(self, study_uid: str, modalities: Collection[str] | None = None) -> list[InstanceReference]:
        """The instances of a study, of its series of these modalities or of all; there may be none of them.

        Raises:
            StudyMissingError: the archive has no series of it at all.
        """
        wanted = [each for each in self.series(study_uid) if modalities is None or each.modality in modalities]
        return [instance for series in wanted for instance in self._instances_of(series)]

    def _instances_of(self, series: SeriesReference) -> list[InstanceReference]:
        study_uid, series_uid = series.study_uid, series.series_uid
        with typed_errors(self.name, study_uid):
            found = self._all(
                lambda offset: self._client.search_for_instances(study_uid, series_uid, offset=offset),
                references.INSTANCE,
            )
            return [
                InstanceReference(
                    study_uid, series_uid, uid, references.uid_in(match, references.SOP_CLASS), series.modality
                )
                for uid, match in found.items()
            ]

    def _all(
        self, page: Callable[[int | None], Sequence[Match]], tag: str, most: int = MAX_MATCHES
    ) -> dict[str, Match]:
        """Matches by the UID in `tag`, page after page, until one brings nothing new."""
        found: dict[str, Match] = {}
        while len(found) <= most:
            matches = {references.uid_in(match, tag): match for match in page(len(found) or None)}
            if matches.keys() <= found.keys():  # an archive that ignores offsets repeats itself
                return found
            found.update(matches)
        raise ArchiveRefusedError(f"Archive {self.name} finds more than {most}, or never ends.")

    def retrieve(
        self, study_uid: str, modalities: Collection[str] = RADIOGRAPHS, max_bytes: int = MAX_INSTANCE_BYTES
    ) -> Iterator[bytes]:
        """Each instance of series of these modalities as a DICOM file, as it was stored; one at a time in memory.

        Nothing is asked before the first is taken, and an error comes in place of the instance that it concerns. The
        bytes are not looked at: reading a file is for a process that may fail.

        Raises:
            StudyMissingError: the archive has no such study.
            ArchiveRefusedError: among others, an instance is larger than `max_bytes`.
        """
        for instance in self.instances(study_uid, modalities):
            yield self.file(instance, max_bytes)

    def file(self, instance: InstanceReference, max_bytes: int = MAX_INSTANCE_BYTES) -> bytes:
        """One instance as a DICOM file, as it was stored; raises what `retrieve` does."""
        with typed_errors(self.name, instance.study_uid):
            return self._retrieved(instance, max_bytes)

    def _retrieved(self, instance: InstanceReference, max_bytes: int, accept: str = ORIGINAL) -> bytes:
        url = str(URI(self._url, instance.study_uid, instance.series_uid, instance.instance_uid))
        body = bytearray()
        with self._session.get(url, headers={"Accept": accept}, stream=True, timeout=self._timeout) as response:
            response.raise_for_status()
            for chunk in response.iter_content(CHUNK_BYTES):
                body += chunk
                if len(body) > max_bytes + ENVELOPE_BYTES:
                    raise ArchiveRefusedError(
                        f"Archive {self.name}: instance {instance.instance_uid} has more than {max_bytes} bytes."
                    )
        return only_part(response.headers.get("Content-Type", ""), body)

    def has(self, study_uid: str, instance_uids: Collection[str]) -> bool:
        """Whether searches find every one of these instances in that study."""
        try:
            return all(self._finds(study_uid, uid) for uid in instance_uids)
        except StudyMissingError:
            return False

    def _finds(self, study_uid: str, instance_uid: str) -> bool:
        references.require_uid(study_uid)
        with typed_errors(self.name, study_uid):
            found = self._client.search_for_instances(study_uid, search_filters={"SOPInstanceUID": instance_uid})
            return any(references.uid_in(match, references.INSTANCE) == instance_uid for match in found)

    def confirm(self, result: InstanceReference, proofs: Collection[bytes], size: int) -> bool:
        """Whether what the archive gives out under the UID of a result of `size` bytes is that result."""
        try:
            with typed_errors(self.name, result.study_uid):
                data = self._retrieved(result, size + SPARE_BYTES, DECODED)
        except StudyMissingError:
            return False
        try:
            return proof_of(dcmread(io.BytesIO(data))) in proofs
        except Exception:  # pydicom reports damage as almost any type, and what is damaged is not ours
            return False

    def store(self, datasets: Sequence[Dataset]) -> None:
        """Send finished objects. Those that the archive has already do no harm; whether it has them now tells `has`.

        Raises:
            ArchiveRefusedError: among others, it failed to store one; the message holds the reason code.
        """
        if not datasets:
            return
        files = [_as_file(dataset) for dataset in datasets]
        with typed_errors(self.name):
            try:
                reply = self._client.store_instances(files)
            except requests.HTTPError as error:
                if error.response is not None and error.response.status_code == HTTPStatus.CONFLICT:
                    self._require_stored(references.reply_of(error.response.content))
                raise
            self._require_stored(reply)

    def _require_stored(self, reply: Dataset) -> None:
        refusals = references.refusals_in(reply)
        if refusals:
            raise ArchiveRefusedError(f"Archive {self.name} did not store {', '.join(refusals)}.")


def _as_file(dataset: Dataset) -> Dataset:
    """With preamble and complete meta header, which dicomweb_client does not write where they are missing."""
    buffer = io.BytesIO()
    try:
        dcmwrite(buffer, dataset, enforce_file_format=True)
    except UNWRITABLE as error:
        uid = dataset.get("SOPInstanceUID", "without UID")
        raise ArchiveRefusedError(f"Instance {uid} cannot be written as DICOM: {type(error).__name__}.") from None
    buffer.seek(0)
    return dcmread(buffer)
