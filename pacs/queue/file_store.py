"""The results of jobs as sealed rows; within the transaction that is given."""

from typing import Any

from sqlalchemy import Connection, Row, delete, select, update

from pacs.instance import Instance
from pacs.queue.encryption import Cipher
from pacs.queue.tables import results


class Spool:
    """The table of results."""

    def __init__(self, cipher: Cipher) -> None:
        self._cipher = cipher

    def put(self, connection: Connection, job_id: str, instance: Instance, proof: bytes | None) -> None:
        """The caller has the job's row locked; `proof` is kept when the bytes go."""
        sealed = self._cipher.encrypt(instance.data, self._purpose(job_id, instance.instance_uid))
        row = {
            "job_id": job_id,
            "series_uid": instance.series_uid,
            "instance_uid": instance.instance_uid,
            "sop_class_uid": instance.sop_class_uid,
            "size": len(sealed),
            "sealed": sealed,
            "proof": proof,
        }
        connection.execute(results.insert().values(row))

    def any_of(self, connection: Connection, job_id: str) -> bool:
        mine = results.c.job_id == job_id
        return connection.execute(select(results.c.number).where(mine).limit(1)).first() is not None

    def all_of(self, connection: Connection, job_id: str) -> list[Instance]:
        rows = connection.execute(select(results).where(results.c.job_id == job_id).order_by(results.c.number))
        return [self._instance(row) for row in rows]

    def references(self, connection: Connection, job_id: str) -> list[Instance]:
        """The same without their data."""
        columns = (results.c.series_uid, results.c.instance_uid, results.c.sop_class_uid)
        rows = connection.execute(select(*columns).where(results.c.job_id == job_id).order_by(results.c.number))
        return [Instance(*row, b"") for row in rows]

    def proofs(self, connection: Connection, instance_uid: str) -> set[bytes]:
        """Of all results of that UID, of whichever job."""
        mine = (results.c.instance_uid == instance_uid) & results.c.proof.is_not(None)
        return set(connection.execute(select(results.c.proof).where(mine)).scalars())

    def delete(self, connection: Connection, job_id: str) -> None:
        connection.execute(delete(results).where(results.c.job_id == job_id))

    def empty(self, connection: Connection, job_id: str) -> None:
        """Delete the bytes, and keep what the files are called."""
        connection.execute(update(results).where(results.c.job_id == job_id).values(sealed=None, size=0))

    def _instance(self, row: Row[Any]) -> Instance:
        purpose = self._purpose(row.job_id, row.instance_uid)
        data = b"" if row.sealed is None else self._cipher.decrypt(row.sealed, purpose)
        return Instance(row.series_uid, row.instance_uid, row.sop_class_uid, data)

    def _purpose(self, job_id: str, instance_uid: str) -> str:
        """A row's bytes do not open in another row, or another table."""
        return f"{results.name} {job_id} {instance_uid}"
