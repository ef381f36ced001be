"""Studies on their way: taken in, and handed to workers one after the other; none is lost, and none is done twice.

Everything is committed when a method returns, and every write of a worker holds only while its lease does. Replicas on
several machines need clocks that agree to within a lease; if they do not, work is repeated, but its results are not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from sqlalchemy import Connection, delete, select, update

from pacs.instance import Instance
from pacs.queue import tables
from pacs.queue.incoming import Looked
from pacs.queue.intake import Intake
from pacs.queue.job import DEFAULT_POLICY, FINISHED, OPEN, Arrival, Job, JobState, RetryPolicy, Settling, Source
from pacs.queue.job_rows import locked, owned, saved, waits_for_earlier
from pacs.queue.study_rows import locked_study, relations

__all__ = ["Arrival", "Instance", "Job", "JobState", "Jobs", "Judgement", "RetryPolicy", "Settling", "Source"]

STOPPED = "The service stopped in the middle of an attempt, and the attempts are used up."


@dataclass(frozen=True)
class Judgement:
    """What an attempt made of a study.

    Attributes:
        results: files, each with what tells it from others of its UID.
        answer: the same in words, for those who ask by HTTP.
        looked: what it looked at, be it judged or left out.
        left_out: a sentence about what was left out; it outlasts an attempt that ends before the job does.
    """

    results: Sequence[tuple[Instance, bytes | None]]
    answer: str
    checkpoint: str
    basis: str
    looked: Sequence[Looked] = ()
    left_out: str | None = None


class Jobs(Intake):
    """What workers and operators do with jobs; the rest is inherited."""

    def leave_alone(self, reason: str, instances: int = 1) -> None:
        """Count instances that were accepted and are not analyzed; `reason` is one of a few."""
        table, now = tables.left_alone, self._clock()
        mine = table.c.reason == reason
        more = {"instances": table.c.instances + instances, "latest": now}
        with self._database.writing() as connection:
            connection.execute(self._database.insert_missing(table).values(reason=reason, instances=0, latest=now))
            connection.execute(update(table).where(mine).values(more))

    def lease(self, owner: str, lease: timedelta, policy: RetryPolicy = DEFAULT_POLICY) -> Job | None:
        """The earliest job that is due, or whose worker was not heard of for its lease; no two callers get the same.

        A further version of a study waits until the one before it has ended. An attempt counts when it begins, so that
        a study that kills the service is dead in the end too.
        """
        now = self._clock()
        table = tables.jobs
        due = select(table).where(table.c.state.in_(OPEN), table.c.due <= now, ~waits_for_earlier())
        due = due.order_by(table.c.due, table.c.id)
        with self._database.writing() as connection:
            while row := connection.execute(due.limit(1).with_for_update(skip_locked=True, of=table)).first():
                job = Job(**row._mapping)
                if job.state == JobState.WAITING or not job.used_up(policy):
                    return saved(connection, job.leased(owner, now, lease))
                saved(connection, job.postponed(STOPPED, policy, now))
        return None

    def renew(self, job: Job, lease: timedelta) -> Job:
        """Keep a job for a further `lease` from now. Raises LeaseLostError."""
        with self._database.writing() as connection:
            return saved(connection, replace(owned(connection, job), due=self._clock() + lease))

    def keep_results(self, job: Job, judgement: Judgement) -> list[Instance]:
        """Store results before anything is sent; those that stand are returned, which are earlier ones if there are.

        Raises:
            LeaseLostError: nothing was stored; the results must not be sent.
        """
        now = self._clock()
        with self._database.writing() as connection:
            locked_study(connection, job.study_id)
            current = owned(connection, job)
            if not self._results.any_of(connection, job.id):
                for result, proof in judgement.results:
                    self._results.put(connection, job.id, result, proof)
                sealed = self._cipher.encrypt(judgement.answer.encode(), f"answer {job.id}")
                connection.execute(tables.answers.insert().values(job_id=job.id, sealed=sealed))
                self._incoming.note(connection, job.study_id, (job.version, now), judgement.looked)
                saved(connection, current.judged(judgement.checkpoint, judgement.basis, judgement.left_out, now))
            return self._results.all_of(connection, job.id)

    def finish(self, job: Job, state: JobState, reason: str | None = None, looked: Sequence[Looked] = ()) -> Job:
        """End a job as delivered, kept or refused; of delivered results all but their UIDs and proofs is deleted.

        What came stays until `empty_answered` or the room for others takes it, in case more of the study comes.

        Raises:
            LeaseLostError: nothing was changed.
        """
        if state not in FINISHED:
            raise ValueError(f"a job does not finish as {state}")
        now = self._clock()
        with self._database.writing() as connection:
            locked_study(connection, job.study_id)
            current = owned(connection, job)
            self._incoming.note(connection, job.study_id, (job.version, now), looked)
            if state == JobState.DELIVERED:
                self._results.empty(connection, job.id)
            return saved(connection, current.finished(state, reason, now))

    def postpone(self, job: Job, reason: str, policy: RetryPolicy = DEFAULT_POLICY) -> Job:
        """End an attempt without an answer: the job waits, longer each time, or is dead. Raises LeaseLostError."""
        with self._database.writing() as connection:
            return saved(connection, owned(connection, job).postponed(reason, policy, self._clock()))

    def empty_answered(self, age: timedelta) -> int:
        """Delete radiographs that came `age` ago and that no job still has to answer for; how many these were."""
        with self._database.writing() as connection:
            return self._incoming.empty_answered(connection, self._clock() - age)

    def empty_dead(self, age: timedelta) -> int:
        """Delete what came of studies whose job has been dead for `age`, and of the longest dead where they are beyond
        the limit of bytes; how many jobs these were.
        """
        table = tables.jobs
        dead = (table.c.state == JobState.DEAD) & (table.c.instances > 0)
        emptied = 0
        with self._database.writing() as connection:
            jobs = [
                Job(**row._mapping) for row in connection.execute(select(table).where(dead).order_by(table.c.changed))
            ]
            for job in jobs:
                is_old = job.changed <= self._clock() - age
                too_many = job.answered is None and self._incoming.bytes(connection, JobState.DEAD) > self._max_bytes
                if is_old or too_many:
                    emptied += self._empty(connection, job)
        return emptied

    def _empty(self, connection: Connection, job: Job) -> bool:
        """False where the job was begun anew meanwhile."""
        locked_study(connection, job.study_id)
        current = locked(connection, job.id)
        if current is None or current.state != JobState.DEAD:
            return False
        self._incoming.empty(connection, job.study_id)
        self._results.delete(connection, job.id)
        connection.execute(delete(tables.answers).where(tables.answers.c.job_id == job.id))
        saved(connection, current.emptied(self._clock()))
        return True

    def retry(self, job_id: str) -> Job | None:
        """Begin a dead job anew, now, unless a later one has answered for its study; any other is returned as it is,
        and None if there is none.
        """
        with self._database.writing() as connection:
            job = locked(connection, job_id)
            if job is None or job.state != JobState.DEAD or relations(connection, job).superseded_by is not None:
                return job
            return saved(connection, job.anew(self._clock()))
