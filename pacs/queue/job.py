"""The state of a job in the queue, and how each event changes it; nothing is stored here."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal, Self

from xray.images.patient_identity import Patient

Source = Literal["stow", "store", "pull"]
"""How a study arrives: by STOW-RS ("stow"), by C-STORE ("store"), or fetched from an archive on request ("pull")."""
JITTER = 0.2
"""Maximum fraction by which a pause is shortened at random, so that many jobs do not become due at once."""


class JobState(StrEnum):
    """The state of a job in the queue."""

    WAITING = "waiting"
    """Not started, or between two attempts."""
    RUNNING = "running"
    """Leased to a worker, which may have crashed."""
    DELIVERED = "delivered"
    """Final: the archive has confirmed that it has the results."""
    KEPT = "kept"
    """Final: no archive is configured, and the results are stored here."""
    REFUSED = "refused"
    """Nothing in the study can be analyzed. Final until a radiograph of the study is sent again."""
    DEAD = "dead"
    """All attempts failed. Final until an operator retries the job or the study is sent again."""


OPEN = (JobState.WAITING, JobState.RUNNING)
"""States of jobs that workers still have to process."""
DONE = (JobState.DELIVERED, JobState.KEPT)
"""States of jobs with results."""
FINISHED = (*DONE, JobState.REFUSED)
"""States in which a worker ends a job."""


@dataclass(frozen=True)
class RetryPolicy:
    """How failed attempts change the state of a job: how many make it dead, and how long it waits after each.

    Attributes:
        attempts: number of failed attempts after which the job is dead.
        first_pause: pause after the first failure; each further pause is twice as long, up to `longest_pause`.
    """

    attempts: int = 12
    first_pause: timedelta = timedelta(seconds=5)
    longest_pause: timedelta = timedelta(minutes=10)

    def pause(self, attempts: int) -> timedelta:
        """Return the pause of a job after that many attempts, shortened at random by up to `JITTER`."""
        doublings = min(
            attempts - 1, 32
        )  # the longest pause is reached long before that, and a timedelta would overflow
        full: timedelta = min(self.first_pause * 2**doublings, self.longest_pause)
        return full * (1 - JITTER * random.random())


DEFAULT_POLICY = RetryPolicy()


@dataclass(frozen=True)
class Settling:
    """How long a job stays in the waiting state for more radiographs of its study before work on it begins.

    Attributes:
        pause: time after the latest instance.
        limit: time after the first instance, however many follow. While a worker has the job, instances that arrive
            later than this belong to a new version.
    """

    pause: timedelta
    limit: timedelta = timedelta(seconds=60)


@dataclass(frozen=True)
class QueueCounts:
    """How many jobs are in each state that a job can have, and other counts of the queue, for /metrics.

    Attributes:
        states: number of jobs in each state.
        overdue: time that the oldest due attempt has waited for a worker.
        left_alone: number of instances that were accepted but not analyzed, by reason.
        refusals: number of instances that were refused, by reason.
    """

    states: Mapping[JobState, int]
    overdue: timedelta
    left_alone: Mapping[str, int]
    refusals: Mapping[str, int]


@dataclass(frozen=True)
class Arrival:
    """Facts that a job's state takes from an arriving instance, beyond those that its `Instance` has.

    Attributes:
        checkpoint: ID of the network that is expected to analyze it.
        archive: name of the archive that the results go to; None keeps them here.
    """

    study_uid: str
    patient: Patient
    checkpoint: str
    archive: str | None
    source: Source


@dataclass(frozen=True)
class Job:
    """A job of the queue: the analysis of one version of a study.

    The analysis covers the radiographs that had arrived when it began.

    Attributes:
        id: opaque.
        study_id: opaque; the same for all versions of a study.
        version: 1 at first; increases by 1 whenever radiographs arrive after the study was answered.
        checkpoint: ID of the network that analyzed the study or, before that, is expected to.
        archive: name of the archive that the results go to; None keeps them here.
        fetched_from: name of the archive from which the study is fetched, in addition to instances that were sent;
            None if it is not fetched.
        attempts: number of attempts since the job was created or last restarted.
        due: when the next attempt may start or, for a running job, when its lease expires; in UTC.
        reason: a sentence about the latest failure, or about radiographs that were left out.
        opened: when its first instance arrived, or when it was last restarted.
        answered: when its results were stored or it was refused; None before that.
        basis: keyed digest of the inputs of the analysis; jobs with the same basis have the same results.
        left_out: a sentence about the radiographs that the results do not cover; None if there are none.
        instances: number of radiographs that arrived for this version.
        owner: name of the worker that holds the lease or held it last.
        lease_number: increases with each lease and each revocation; a worker with an older number has lost the job.
    """

    id: str
    study_id: str
    study_uid: str
    version: int
    checkpoint: str
    archive: str | None
    fetched_from: str | None
    source: Source
    state: JobState
    attempts: int
    due: datetime
    reason: str | None
    created: datetime
    opened: datetime
    changed: datetime
    answered: datetime | None = None
    basis: str | None = None
    left_out: str | None = None
    instances: int = 0
    owner: str | None = None
    lease_number: int = 0

    @property
    def is_undecided(self) -> bool:
        """Whether the job's state is open, without results so far."""
        return self.state in OPEN and self.answered is None

    def accepts_instance(self, now: datetime, settling: Settling) -> bool:
        """Return whether an instance that arrives now still joins the job; long attempts are not restarted."""
        return self.is_undecided and (self.state == JobState.WAITING or now < self.opened + settling.limit)

    def restarted(self, now: datetime, pause: timedelta = timedelta(0)) -> Self:
        """Return the job as changed by a restart: the attempts are reset, and stored results stay valid."""
        answered = None if self.basis is None else self.answered
        return replace(
            self,
            state=JobState.WAITING,
            attempts=0,
            due=now + pause,
            reason=None,
            opened=now,
            changed=now,
            answered=answered,
        )

    def with_instance(self, now: datetime, settling: Settling) -> Self:
        """Return the job as changed by a new instance: if it runs, it starts over, and the attempt does not count."""
        due = min(now + settling.pause, max(self.opened + settling.limit, now))
        more = replace(self.with_lease_revoked(now), instances=self.instances + 1, changed=now)
        # A job that has failed before keeps its pause.
        return replace(more, due=due if more.attempts == 0 else max(more.due, due))

    def with_lease_revoked(self, now: datetime) -> Self:
        """Return a running job as changed by revoking its lease; the attempt does not count. Others stay unchanged."""
        if self.state != JobState.RUNNING:
            return self
        return replace(
            self,
            state=JobState.WAITING,
            attempts=self.attempts - 1,
            due=now,
            lease_number=self.lease_number + 1,
            changed=now,
        )

    def leased(self, owner: str, now: datetime, lease: timedelta) -> Self:
        """Return the job as changed by a lease: a worker has it, and the attempt counts."""
        return replace(
            self,
            state=JobState.RUNNING,
            attempts=self.attempts + 1,
            due=now + lease,
            changed=now,
            owner=owner,
            lease_number=self.lease_number + 1,
        )

    def has_used_up(self, policy: RetryPolicy) -> bool:
        """Return whether the job has used up the attempts that the policy allows."""
        return self.attempts >= policy.attempts

    def postponed(self, reason: str, policy: RetryPolicy, now: datetime) -> Self:
        """Return the job as changed by an attempt without results: it is dead if the attempts are used up."""
        state = JobState.DEAD if self.has_used_up(policy) else JobState.WAITING
        return replace(self, state=state, due=now + policy.pause(self.attempts), reason=reason, changed=now)

    def purged(self, now: datetime) -> Self:
        """Return a dead job as changed by a purge: only its row is left."""
        reason = f"{self.reason} The radiographs of the study have been deleted since then; send them again."
        return replace(self, instances=0, reason=reason, changed=now, answered=None, basis=None, left_out=None)

    def answer_stored(self, checkpoint: str, basis: str, left_out: str | None, now: datetime) -> Self:
        """Return the job as changed by the storing of its results."""
        return replace(self, checkpoint=checkpoint, basis=basis, left_out=left_out, answered=now, changed=now)

    def finished(self, state: JobState, reason: str | None, now: datetime) -> Self:
        """Return the job as changed by its end in a final state."""
        return replace(self, state=state, reason=reason, due=now, changed=now, answered=self.answered or now)
