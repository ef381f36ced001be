"""Stores DICOM files encrypted in the database: the radiographs of studies and the results of jobs.

Every method works within the transaction of its `Connection` argument. The caller has to lock the row of the study or
the job first.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, delete, exists, func, select, update

from pacs.instance import Instance
from pacs.queue.encryption import Cipher
from pacs.queue.job import OPEN, JobState
from pacs.queue.patient_digests import PatientDigests
from pacs.queue.tables import instance_purpose, instances, jobs, results

PREAMBLE_BYTES = 132
"""Length of a DICOM file's preamble and signature, in bytes."""
GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"
"""First bytes of a file's first element, whose value is the length of the meta header."""
EVICTION_BATCH_ROWS = 100
"""Rows that `InstanceStore.evict` reads at a time, so that a large table does not have to fit into memory."""


@dataclass(frozen=True)
class StoredInstance:
    """A radiograph in the queue's file store, without its data.

    Attributes:
        number: number of its row; increases in the order of arrival.
        version: the first version of the study that includes it.
        judged: the latest version that examined it; 0 if none has.
        instance: the UIDs; the data is empty.
        patient: digests of the patient; None if unknown.
        digest: digest of the content; None if unknown.
        has_data: whether the file is still stored.
    """

    number: int
    version: int
    judged: int
    instance: Instance
    patient: PatientDigests | None
    digest: bytes | None
    has_data: bool


@dataclass(frozen=True)
class ExaminedInstance:
    """What the file store records of a radiograph that a worker examined: its UIDs and its content's digest."""

    instance: Instance
    digest: bytes


def content_digest(cipher: Cipher, data: bytes) -> bytes:
    """Return the file store's keyed digest of a DICOM file, without the meta header, which differs by sender."""
    start = PREAMBLE_BYTES
    if data[start : start + len(GROUP_LENGTH)] == GROUP_LENGTH:
        end = start + len(GROUP_LENGTH) + 4
        start = end + int.from_bytes(data[end - 4 : end], "little")
    return cipher.digest("content", data[start:])


class InstanceStore:
    """The file store of all studies' radiographs: the table `instances`."""

    def __init__(self, cipher: Cipher) -> None:
        self._cipher = cipher

    def find(self, connection: Connection, study_id: str, instance_uid: str) -> StoredInstance | None:
        """Return the file store's radiograph with a UID in a study; None if there is none."""
        row = connection.execute(_select_without_data().where(_is_instance(study_id, instance_uid))).first()
        return None if row is None else _stored_instance(row)

    def select(self, connection: Connection, study_id: str, version: int) -> list[StoredInstance]:
        """Return the file store's radiographs of a version of a study, in the order of arrival."""
        is_included = (instances.c.study_id == study_id) & (instances.c.version <= version)
        query = _select_without_data().where(is_included).order_by(instances.c.number)
        return [_stored_instance(row) for row in connection.execute(query)]

    def insert(
        self,
        connection: Connection,
        study_id: str,
        instance: Instance,
        patient: PatientDigests,
        arrival: tuple[int, datetime],
    ) -> None:
        """Add a new radiograph to the file store; `arrival` is the version that it belongs to, and the time."""
        row = self._row(study_id, instance) | {"study_id": study_id, "version": arrival[0], "judged": 0}
        connection.execute(instances.insert().values(row | {"owner": patient.to_text(), "came": arrival[1]}))

    def restore_data(
        self, connection: Connection, study_id: str, stored: StoredInstance, instance: Instance, now: datetime
    ) -> None:
        """Put a radiograph's file into the file store again after it was purged.

        The content may differ from the first file's if the study is fetched from an archive.
        """
        row = self._row(study_id, instance) | {"came": now}
        connection.execute(update(instances).where(instances.c.number == stored.number).values(row))

    def read_data(self, connection: Connection, number: int) -> bytes | None:
        """Return the file in a row of the file store's radiographs; None if it was purged."""
        row = connection.execute(select(instances).where(instances.c.number == number)).first()
        if row is None or row.sealed is None:
            return None
        return self._cipher.decrypt(row.sealed, instance_purpose(row.study_id, row.instance_uid))

    def mark_examined(
        self,
        connection: Connection,
        study_id: str,
        examination: tuple[int, datetime],
        examined: Iterable[ExaminedInstance],
    ) -> None:
        """Record in the file store that a version examined these radiographs; insert those fetched from an archive.

        `examination` is the version and the time.
        """
        version, now = examination
        for each in examined:
            instance = each.instance
            is_same = _is_instance(study_id, instance.instance_uid)
            done = connection.execute(update(instances).where(is_same).values(judged=version))
            if done.rowcount == 0:
                row = {
                    "study_id": study_id,
                    "version": version,
                    "judged": version,
                    "series_uid": instance.series_uid,
                    "instance_uid": instance.instance_uid,
                    "sop_class_uid": instance.sop_class_uid,
                    "digest": each.digest,
                    "came": now,
                    "size": 0,
                }
                connection.execute(instances.insert().values(row))

    def stored_bytes(self, connection: Connection, state: JobState | None = None) -> int:
        """Return the encrypted bytes of the file store's radiographs.

        With `state`, only those of studies with an unanswered job in that state count.
        """
        query = select(func.coalesce(func.sum(instances.c.size), 0)).where(instances.c.size > 0)
        if state is not None:
            unanswered = and_(jobs.c.study_id == instances.c.study_id, jobs.c.state == state, jobs.c.answered.is_(None))
            query = query.where(exists().where(unanswered))
        return int(connection.execute(query).scalar_one())

    def purge(self, connection: Connection, study_id: str) -> None:
        """Delete the files of a study from the file store but keep their rows."""
        connection.execute(update(instances).where(instances.c.study_id == study_id).values(sealed=None, size=0))

    def purge_answered(self, connection: Connection, until: datetime) -> int:
        """Delete the file store's files that arrived by `until` and that no job needs; return their number."""
        is_expired = and_(instances.c.size > 0, instances.c.came <= until, ~_is_needed())
        return int(connection.execute(update(instances).where(is_expired).values(sealed=None, size=0)).rowcount)

    def evict(self, connection: Connection, size: int) -> int:
        """Evict the file store's oldest files that no job needs until `size` bytes are freed; return the bytes freed.

        The result is less than `size` if too few files can be deleted.
        """
        query = select(instances.c.number, instances.c.size).where(instances.c.size > 0, ~_is_needed())
        query = query.order_by(instances.c.came).limit(EVICTION_BATCH_ROWS)
        freed = 0
        while freed < size and (rows := connection.execute(query).all()):
            for row in rows:
                if freed >= size:
                    break
                is_row = instances.c.number == row.number
                connection.execute(update(instances).where(is_row).values(sealed=None, size=0))
                freed += row.size
        return freed

    def _row(self, study_id: str, instance: Instance) -> dict[str, object]:
        encrypted = self._cipher.encrypt(instance.data, instance_purpose(study_id, instance.instance_uid))
        return {
            "series_uid": instance.series_uid,
            "instance_uid": instance.instance_uid,
            "sop_class_uid": instance.sop_class_uid,
            "digest": content_digest(self._cipher, instance.data),
            "size": len(encrypted),
            "sealed": encrypted,
        }


class ResultStore:
    """The file store of the results that jobs produced: the table `results`."""

    def __init__(self, cipher: Cipher) -> None:
        self._cipher = cipher

    def insert(self, connection: Connection, job_id: str, instance: Instance, fingerprint: bytes | None) -> None:
        """Add a result to the file store; its fingerprint stays when the file is purged."""
        encrypted = self._cipher.encrypt(instance.data, _result_purpose(job_id, instance.instance_uid))
        row = {
            "job_id": job_id,
            "series_uid": instance.series_uid,
            "instance_uid": instance.instance_uid,
            "sop_class_uid": instance.sop_class_uid,
            "size": len(encrypted),
            "sealed": encrypted,
            "proof": fingerprint,
        }
        connection.execute(results.insert().values(row))

    def has_any(self, connection: Connection, job_id: str) -> bool:
        """Return whether the file store has results of a job, purged or not."""
        query = select(results.c.number).where(results.c.job_id == job_id).limit(1)
        return connection.execute(query).first() is not None

    def select(self, connection: Connection, job_id: str) -> list[Instance]:
        """Return the file store's results of a job; the data of purged ones is empty."""
        rows = connection.execute(select(results).where(results.c.job_id == job_id).order_by(results.c.number))
        return [self._instance(row) for row in rows]

    def select_references(self, connection: Connection, job_id: str) -> list[Instance]:
        """Return the file store's results of a job without their data."""
        columns = (results.c.series_uid, results.c.instance_uid, results.c.sop_class_uid)
        rows = connection.execute(select(*columns).where(results.c.job_id == job_id).order_by(results.c.number))
        return [Instance(*row, b"") for row in rows]

    def select_fingerprints(self, connection: Connection, instance_uid: str) -> set[bytes]:
        """Return the fingerprints of all results with that UID in the file store, of any job."""
        has_fingerprint = (results.c.instance_uid == instance_uid) & results.c.proof.is_not(None)
        return set(connection.execute(select(results.c.proof).where(has_fingerprint)).scalars())

    def delete(self, connection: Connection, job_id: str) -> None:
        """Delete the rows of a job's results from the file store."""
        connection.execute(delete(results).where(results.c.job_id == job_id))

    def purge(self, connection: Connection, job_id: str) -> None:
        """Delete the files of a job's results from the file store but keep their UIDs and fingerprints."""
        connection.execute(update(results).where(results.c.job_id == job_id).values(sealed=None, size=0))

    def _instance(self, row: Row[Any]) -> Instance:
        purpose = _result_purpose(row.job_id, row.instance_uid)
        data = b"" if row.sealed is None else self._cipher.decrypt(row.sealed, purpose)
        return Instance(row.series_uid, row.instance_uid, row.sop_class_uid, data)


def _result_purpose(job_id: str, instance_uid: str) -> str:
    """Bind encrypted data to its row, so that it cannot be decrypted in another row or table."""
    return f"{results.name} {job_id} {instance_uid}"


def _is_instance(study_id: str, instance_uid: str) -> Any:
    return (instances.c.study_id == study_id) & (instances.c.instance_uid == instance_uid)


def _is_needed() -> Any:
    """SQL condition: a job of the study is still unanswered. A dead one counts, because an operator may retry it."""
    is_unanswered = jobs.c.answered.is_(None) & jobs.c.state.in_((*OPEN, JobState.DEAD))
    return exists().where(jobs.c.study_id == instances.c.study_id, is_unanswered)


def _select_without_data() -> Select[Any]:
    columns = [each for each in instances.c if each.name != "sealed"]
    return select(*columns, (instances.c.size > 0).label("has_data"))


def _stored_instance(row: Row[Any]) -> StoredInstance:
    instance = Instance(row.series_uid, row.instance_uid, row.sop_class_uid, b"")
    patient = None if row.owner is None else PatientDigests.from_text(row.owner)
    return StoredInstance(row.number, row.version, row.judged, instance, patient, row.digest, bool(row.has_data))
