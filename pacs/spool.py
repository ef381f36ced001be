"""DICOM files of jobs in, sealed rows of a table out, and back; within the transaction that it is given."""

from typing import Any

from sqlalchemy import Connection, Row, Table, delete, func, select, update

from pacs.job import Instance
from pacs.sealing import Seal


class Spool:
    """The files of one table: those that came, or the results."""

    def __init__(self, table: Table, seal: Seal) -> None:
        self._table = table
        self._seal = seal

    def put(self, connection: Connection, job_id: str, instance: Instance) -> bool:
        """False if one of that UID is there. The caller has the job's row locked, so nobody adds one meanwhile."""
        table = self._table
        mine = (table.c.job_id == job_id) & (table.c.instance_uid == instance.instance_uid)
        if connection.execute(select(table.c.number).where(mine)).first() is not None:
            return False
        sealed = self._seal.seal(instance.data, self._purpose(job_id, instance.instance_uid))
        row = {
            "job_id": job_id,
            "series_uid": instance.series_uid,
            "instance_uid": instance.instance_uid,
            "sop_class_uid": instance.sop_class_uid,
            "size": len(sealed),
            "sealed": sealed,
        }
        connection.execute(table.insert().values(row))
        return True

    def any_of(self, connection: Connection, job_id: str) -> bool:
        mine = self._table.c.job_id == job_id
        return connection.execute(select(self._table.c.number).where(mine).limit(1)).first() is not None

    def after(self, connection: Connection, job_id: str, number: int) -> tuple[int, Instance] | None:
        """The first with a higher number, and its number; 0 is below all."""
        table = self._table
        mine = (table.c.job_id == job_id) & (table.c.number > number)
        row = connection.execute(select(table).where(mine).order_by(table.c.number).limit(1)).first()
        return None if row is None else (row.number, self._instance(row))

    def all_of(self, connection: Connection, job_id: str) -> list[Instance]:
        table = self._table
        rows = connection.execute(select(table).where(table.c.job_id == job_id).order_by(table.c.number))
        return [self._instance(row) for row in rows]

    def delete(self, connection: Connection, job_id: str) -> None:
        connection.execute(delete(self._table).where(self._table.c.job_id == job_id))

    def empty(self, connection: Connection, job_id: str) -> None:
        """Delete the bytes, and keep what the files are called."""
        connection.execute(update(self._table).where(self._table.c.job_id == job_id).values(sealed=None, size=0))

    def bytes(self, connection: Connection) -> int:
        """Of all files, as they are stored."""
        return int(connection.execute(select(func.coalesce(func.sum(self._table.c.size), 0))).scalar_one())

    def _instance(self, row: Row[Any]) -> Instance:
        purpose = self._purpose(row.job_id, row.instance_uid)
        data = b"" if row.sealed is None else self._seal.unseal(row.sealed, purpose)
        return Instance(row.series_uid, row.instance_uid, row.sop_class_uid, data)

    def _purpose(self, job_id: str, instance_uid: str) -> str:
        """A row's bytes do not open in another row, or another table."""
        return f"{self._table.name} {job_id} {instance_uid}"
