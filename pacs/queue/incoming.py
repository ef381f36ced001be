"""The radiographs of studies that came, sealed, and what is known of those whose bytes are no longer here.

Everything happens within the transaction that is given, whose caller has the study's row locked.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, exists, func, select, update

from pacs.instance import Instance
from pacs.queue.encryption import Cipher
from pacs.queue.job import OPEN, JobState
from pacs.queue.owner import Owner
from pacs.queue.tables import instance_purpose, instances, jobs

PREAMBLE_BYTES = 132
"""Of a DICOM file, its signature included."""
GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"
"""How the first element of a DICOM file begins, which says how long the meta header is."""
ROOM_STEP = 100
"""Rows that are looked at in one go for room."""


@dataclass(frozen=True)
class Known:
    """A radiograph of a study, without its bytes.

    Attributes:
        version: the first that has it.
        judged: the latest that looked at it, 0 for none.
        owner: None where the patient is not known.
        digest: of its content; None where it is not known.
        is_here: whether its bytes are.
    """

    number: int
    version: int
    judged: int
    instance: Instance
    owner: Owner | None
    digest: bytes | None
    is_here: bool


@dataclass(frozen=True)
class Looked:
    """A radiograph that a worker looked at: where it is, and the digest of its content."""

    instance: Instance
    digest: bytes


def content_digest(cipher: Cipher, data: bytes) -> bytes:
    """Of all tags of a file; its meta header is left out, which each sender writes in a way of its own."""
    start = PREAMBLE_BYTES
    if data[start : start + len(GROUP_LENGTH)] == GROUP_LENGTH:
        end = start + len(GROUP_LENGTH) + 4
        start = end + int.from_bytes(data[end - 4 : end], "little")
    return cipher.digest("content", data[start:])


class Incoming:
    """The table of instances."""

    def __init__(self, cipher: Cipher) -> None:
        self._cipher = cipher

    def find(self, connection: Connection, study_id: str, instance_uid: str) -> Known | None:
        mine = (instances.c.study_id == study_id) & (instances.c.instance_uid == instance_uid)
        row = connection.execute(_known().where(mine)).first()
        return None if row is None else _known_of(row)

    def all_of(self, connection: Connection, study_id: str, version: int) -> list[Known]:
        """Those of a version, in the order in which they came."""
        mine = (instances.c.study_id == study_id) & (instances.c.version <= version)
        return [_known_of(row) for row in connection.execute(_known().where(mine).order_by(instances.c.number))]

    def put(
        self, connection: Connection, study_id: str, instance: Instance, owner: Owner, place: tuple[int, datetime]
    ) -> None:
        """A new one; `place` is the version that it comes for, and when."""
        row = self._row(study_id, instance) | {"study_id": study_id, "version": place[0], "judged": 0}
        connection.execute(instances.insert().values(row | {"owner": owner.text(), "came": place[1]}))

    def restore(self, connection: Connection, study_id: str, known: Known, instance: Instance, came: datetime) -> None:
        """The bytes of one that is known, whose own are gone; they may be others where an archive has the first."""
        row = self._row(study_id, instance) | {"came": came}
        connection.execute(update(instances).where(instances.c.number == known.number).values(row))

    def data(self, connection: Connection, number: int) -> bytes | None:
        """The file of a row; None where the bytes are gone."""
        row = connection.execute(select(instances).where(instances.c.number == number)).first()
        if row is None or row.sealed is None:
            return None
        return self._cipher.decrypt(row.sealed, instance_purpose(row.study_id, row.instance_uid))

    def note(
        self, connection: Connection, study_id: str, place: tuple[int, datetime], looked: Iterable[Looked]
    ) -> None:
        """A version has looked at these; those that were fetched from an archive become known by it."""
        version, now = place
        for each in looked:
            instance = each.instance
            mine = (instances.c.study_id == study_id) & (instances.c.instance_uid == instance.instance_uid)
            done = connection.execute(update(instances).where(mine).values(judged=version))
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

    def bytes(self, connection: Connection, state: JobState | None = None) -> int:
        """Of all files, as they are stored, or of those of studies with an unanswered job of that state."""
        query = select(func.coalesce(func.sum(instances.c.size), 0)).where(instances.c.size > 0)
        if state is not None:
            unanswered = and_(jobs.c.study_id == instances.c.study_id, jobs.c.state == state, jobs.c.answered.is_(None))
            query = query.where(exists().where(unanswered))
        return int(connection.execute(query).scalar_one())

    def empty(self, connection: Connection, study_id: str) -> None:
        """Delete the bytes of a study."""
        connection.execute(update(instances).where(instances.c.study_id == study_id).values(sealed=None, size=0))

    def empty_answered(self, connection: Connection, until: datetime) -> int:
        """Delete bytes that came until then and that no job still has to answer for; how many files these were."""
        here = and_(instances.c.size > 0, instances.c.came <= until, ~_needed())
        return int(connection.execute(update(instances).where(here).values(sealed=None, size=0)).rowcount)

    def make_room(self, connection: Connection, size: int) -> int:
        """Delete bytes that no job still has to answer for, the oldest first, until `size` of them are free or none is
        left; how many bytes these were.
        """
        query = select(instances.c.number, instances.c.size).where(instances.c.size > 0, ~_needed())
        freed = 0
        while freed < size and (rows := connection.execute(query.order_by(instances.c.came).limit(ROOM_STEP)).all()):
            for row in rows:
                if freed >= size:
                    break
                here = instances.c.number == row.number
                connection.execute(update(instances).where(here).values(sealed=None, size=0))
                freed += row.size
        return freed

    def _row(self, study_id: str, instance: Instance) -> dict[str, object]:
        sealed = self._cipher.encrypt(instance.data, instance_purpose(study_id, instance.instance_uid))
        return {
            "series_uid": instance.series_uid,
            "instance_uid": instance.instance_uid,
            "sop_class_uid": instance.sop_class_uid,
            "digest": content_digest(self._cipher, instance.data),
            "size": len(sealed),
            "sealed": sealed,
        }


def _needed() -> Any:
    """Whether a job of the study has no answer yet; a dead one waits for an operator."""
    waits = jobs.c.answered.is_(None) & jobs.c.state.in_((*OPEN, JobState.DEAD))
    return exists().where(jobs.c.study_id == instances.c.study_id, waits)


def _known() -> Select[Any]:
    columns = [each for each in instances.c if each.name != "sealed"]
    return select(*columns, (instances.c.size > 0).label("is_here"))


def _known_of(row: Row[Any]) -> Known:
    instance = Instance(row.series_uid, row.instance_uid, row.sop_class_uid, b"")
    owner = None if row.owner is None else Owner.from_text(row.owner)
    return Known(row.number, row.version, row.judged, instance, owner, row.digest, bool(row.is_here))
