"""Brings results to an archive, and makes sure that it has these and nothing else under their UIDs."""

from collections.abc import Collection, Mapping, Sequence

from app.archive_threads import OpenArchive
from app.service import Service
from pacs.errors import ArchiveRefusedError, ArchiveUnavailableError
from pacs.job import Instance
from pacs.references import InstanceReference

SPARE_BYTES = 64 << 10
"""What an archive may add to an object that is our own."""


async def deliver(
    service: Service,
    open_archive: OpenArchive,
    study_uid: str,
    results: Sequence[Instance],
    proofs: Mapping[str, Collection[bytes]],
) -> None:
    """Send what the archive does not have, and believe that it has it only once it gives it out.

    Args:
        proofs: by SOP Instance UID, of the files that count as that result.

    Raises:
        PacsError: it does not take them, does not find them yet, or has something else under the UID of one.
    """
    archive, uids = open_archive.archive, [result.instance_uid for result in results]
    if not await open_archive.run(archive.has, study_uid, uids):
        await open_archive.run(archive.send, [result.data for result in results])
        if not await open_archive.run(archive.has, study_uid, uids):
            raise ArchiveUnavailableError(f"Archive {archive.name} took the results and does not find them yet.")
    for result in results:
        reference = InstanceReference(study_uid, result.series_uid, result.instance_uid, result.sop_class_uid, "")
        given = await open_archive.run(archive.given, reference, len(result.data) + SPARE_BYTES)
        if given is None or await service.results.proof(given) not in proofs.get(result.instance_uid, ()):
            raise ArchiveRefusedError(
                f"Archive {archive.name} has something else than the result under {result.instance_uid}, or does not "
                "give it out."
            )
