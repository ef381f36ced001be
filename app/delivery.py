"""Makes the files of a result, and brings them to an archive."""

from collections.abc import Collection, Mapping, Sequence

from pacs.archive import Archive
from pacs.capture import secondary_capture
from pacs.errors import ArchiveRefusedError, ArchiveUnavailableError
from pacs.finding import StudyFinding
from pacs.job import Instance
from pacs.proof import proof_of
from pacs.references import InstanceReference
from pacs.report import structured_report
from xray.dicom import dataset_of, file_of


def results_of(finding: StudyFinding) -> list[tuple[Instance, bytes]]:
    """The picture and the report, as files, each with its proof."""
    capture = secondary_capture(finding)
    made = []
    for each in (capture, structured_report(finding, capture)):
        data = file_of(each)
        result = Instance(each.SeriesInstanceUID, each.SOPInstanceUID, each.SOPClassUID, data)
        made.append((result, proof_of(dataset_of(data))))
    return made


def deliver(
    archive: Archive, study_uid: str, results: Sequence[Instance], proofs: Mapping[str, Collection[bytes]]
) -> None:
    """Send what the archive does not have, and believe that it has it only once it gives it out.

    Raises:
        PacsError: it does not take them, does not find them yet, or has something else under the UID of one.
    """
    uids = [result.instance_uid for result in results]
    with archive:
        if not archive.has(study_uid, uids):
            archive.store([dataset_of(result.data) for result in results])
            if not archive.has(study_uid, uids):
                raise ArchiveUnavailableError(f"Archive {archive.name} took the results and does not find them yet.")
        for result in results:
            reference = InstanceReference(study_uid, result.series_uid, result.instance_uid, result.sop_class_uid, "")
            if not archive.confirm(reference, proofs.get(result.instance_uid, ()), len(result.data)):
                raise ArchiveRefusedError(
                    f"Archive {archive.name} has something else than the result under {result.instance_uid}, or does "
                    "not give it out."
                )
