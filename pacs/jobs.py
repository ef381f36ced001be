"""Studies on their way in, one after the other to whoever works on them out; none is lost, and none is done twice.

Everything is committed when a method returns, and every write of a worker holds only while its lease does. Replicas on
several machines need clocks that agree to within a lease; if they do not, work is repeated, but its results are not.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import timedelta

from sqlalchemy import Connection, select, update

from pacs import tables
from pacs.job import DEFAULT_POLICY, DONE, FINISHED, OPEN, Instance, Job, JobState, RetryPolicy, Source
from pacs.job_errors import SpoolFullError
from pacs.job_rows import locked, owned, saved
from pacs.known_jobs import KnownJobs

__all__ = ["Instance", "Job", "JobState", "Jobs", "RetryPolicy", "Source"]

STOPPED = "The service stopped in the middle of an attempt, and the attempts are used up."


class Jobs(KnownJobs):
    """What changes jobs; what only looks at them is inherited."""

    def receive(
        self,
        study_uid: str,
        checkpoint: str,
        archive: str | None,
        source: Source,
        instance: Instance,
        settle: timedelta,
    ) -> Job:
        """Put an instance into its study's job, which begins `settle` after the latest.

        An instance that is there already, and any of a job that has its results, changes nothing: those stand, as one
        study and checkpoint have one pair. If one comes before, while the job is running, the lease is withdrawn: the
        worker's next write fails, and the grown study is begun again as a whole. A job that was refused or is dead
        begins anew.

        Raises:
            SpoolFullError: the limit is reached; nothing was stored.
        """
        now = self._clock()
        with self._database.writing() as connection:
            job = self._opened(connection, Job.new(study_uid, checkpoint, archive, source, now))
            if job.state in DONE:
                return job
            if job.state not in OPEN:
                job = replace(job.anew(now, settle), archive=archive, source=source)
            if not self._results.any_of(connection, job.id) and self._incoming.put(connection, job.id, instance):
                self._check_room(connection)
                job = job.grown(now, settle)
            return saved(connection, job)

    def leave_alone(self, reason: str, instances: int = 1) -> None:
        """Count instances that were accepted and are not analyzed; `reason` is one of a few."""
        table, now = tables.left_alone, self._clock()
        mine = table.c.reason == reason
        more = {"instances": table.c.instances + instances, "latest": now}
        with self._database.writing() as connection:
            connection.execute(self._database.insert_missing(table).values(reason=reason, instances=0, latest=now))
            connection.execute(update(table).where(mine).values(more))

    def request(self, study_uid: str, checkpoint: str, archive: str) -> Job:
        """The job of a study that is to be fetched from an archive and given back to it.

        One that is on its way or delivered is returned as it is. Results that were kept here are now delivered there;
        a job that was refused or is dead begins anew.
        """
        now = self._clock()
        with self._database.writing() as connection:
            job = self._opened(connection, Job.new(study_uid, checkpoint, archive, "pull", now))
            if job.state in OPEN or job.state == JobState.DELIVERED:
                return job
            return saved(connection, replace(job.anew(now), archive=archive, source="pull"))

    def lease(self, owner: str, lease: timedelta, policy: RetryPolicy = DEFAULT_POLICY) -> Job | None:
        """The earliest job that is due, or whose worker was not heard of for its lease; no two callers get the same.

        It counts an attempt, so that a study that kills the service is dead in the end too.
        """
        now = self._clock()
        table = tables.jobs
        due = select(table).where(table.c.state.in_(OPEN), table.c.due <= now).order_by(table.c.due, table.c.id)
        with self._database.writing() as connection:
            while row := connection.execute(due.limit(1).with_for_update(skip_locked=True)).first():
                job = Job(**row._mapping)
                if job.state == JobState.WAITING or not job.used_up(policy):
                    return saved(connection, job.leased(owner, now, lease))
                saved(connection, job.postponed(STOPPED, policy, now))
        return None

    def renew(self, job: Job, lease: timedelta) -> Job:
        """Keep a job for a further `lease` from now. Raises LeaseLostError."""
        with self._database.writing() as connection:
            return saved(connection, replace(owned(connection, job), due=self._clock() + lease))

    def keep_results(self, job: Job, results: Sequence[Instance], answer: str | None = None) -> list[Instance]:
        """Store results before anything is sent; those that stand are returned, which are earlier ones if there are.

        Raises:
            LeaseLostError: nothing was stored; the results must not be sent.
        """
        with self._database.writing() as connection:
            owned(connection, job)
            if not self._results.any_of(connection, job.id):
                for result in results:
                    self._results.put(connection, job.id, result)
                if answer is not None:
                    sealed = self._seal.seal(answer.encode(), f"answer {job.id}")
                    connection.execute(tables.answers.insert().values(job_id=job.id, sealed=sealed))
            return self._results.all_of(connection, job.id)

    def finish(self, job: Job, state: JobState, reason: str | None = None) -> Job:
        """End a job as delivered, kept or refused; what came is deleted, and of delivered results all but their UIDs.

        Raises:
            LeaseLostError: nothing was changed.
        """
        if state not in FINISHED:
            raise ValueError(f"a job does not finish as {state}")
        with self._database.writing() as connection:
            current = owned(connection, job)
            self._incoming.delete(connection, job.id)
            if state == JobState.DELIVERED:
                self._results.empty(connection, job.id)
            return saved(connection, current.finished(state, reason, self._clock()))

    def postpone(self, job: Job, reason: str, policy: RetryPolicy = DEFAULT_POLICY) -> Job:
        """End an attempt without an answer: the job waits, longer each time, or is dead. Raises LeaseLostError."""
        with self._database.writing() as connection:
            return saved(connection, owned(connection, job).postponed(reason, policy, self._clock()))

    def empty_dead(self, age: timedelta) -> int:
        """Delete what came of jobs that have been dead for `age`, and their results; how many these were."""
        now, table = self._clock(), tables.jobs
        dead = (table.c.state == JobState.DEAD) & (table.c.changed <= now - age) & (table.c.instances > 0)
        with self._database.writing() as connection:
            jobs = [Job(**row._mapping) for row in connection.execute(select(table).where(dead).with_for_update())]
            for job in jobs:
                self._incoming.delete(connection, job.id)
                self._results.delete(connection, job.id)
                saved(connection, job.emptied(now))
        return len(jobs)

    def retry(self, job_id: str) -> Job | None:
        """Begin a dead job anew, now; any other is returned as it is, and None if there is none."""
        with self._database.writing() as connection:
            job = locked(connection, job_id)
            if job is None or job.state != JobState.DEAD:
                return job
            return saved(connection, job.anew(self._clock()))

    def _opened(self, connection: Connection, new: Job) -> Job:
        """The job of that id, locked: the one that is there, or else the new one."""
        connection.execute(self._database.insert_missing(tables.jobs).values(asdict(new)))
        job = locked(connection, new.id)
        return new if job is None else job

    def _check_room(self, connection: Connection) -> None:
        """Replicas that store in the same instant may exceed the limit by what each of them stores."""
        if self._incoming.bytes(connection) > self._max_bytes:
            raise SpoolFullError("As many bytes of studies are on their way as may be; send this one again later.")
