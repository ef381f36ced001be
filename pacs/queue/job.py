"""The state of a job, and how each event changes it; nothing is stored here."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal, Self

from xray.images.patient_identity import Patient

Source = Literal["stow", "store", "pull"]
"""How a study arrives: by STOW-RS, by C-STORE, or fetched from an archive on request."""
JITTER = 0.2
"""Largest fraction by which a pause is shortened at random, so that many jobs do not become due at once."""


class JobState(StrEnum):
    """The state of a job."""

    WAITING = "waiting"
    """Not started, or between two attempts."""
    RUNNING = "running"
    """Leased to a worker, which may have died."""
    DELIVERED = "delivered"
    """Final: the archive has confirmed that it has the results."""
    KEPT = "kept"
    """Final: no archive is configured, and the results are stored here."""
    REFUSED = "refused"
    """Final until a radiograph of the study is sent again: nothing in it can be judged."""
    DEAD = "dead"
    """Final until an operator retries it or the study is sent again: the attempts are used up."""


OPEN = (JobState.WAITING, JobState.RUNNING)
"""States of jobs that workers still have to process."""
DONE = (JobState.DELIVERED, JobState.KEPT)
"""States of jobs with results."""
FINISHED = (*DONE, JobState.REFUSED)
"""States in which a worker ends a job."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often a job is attempted, and how long it waits in between.

    Attributes:
        attempts: number of failed attempts after which the job is dead.
        first_pause: after the first failure; each further pause is twice as long, up to `longest_pause`.
    """

    attempts: int = 12
    first_pause: timedelta = timedelta(seconds=5)
    longest_pause: timedelta = timedelta(minutes=10)

    def pause(self, attempts: int) -> timedelta:
        """Return the pause after that many attempts, shortened at random by up to `JITTER`."""
        doublings = min(attempts - 1, 32)  # the longest pause is reached long before, and a timedelta would overflow
        full: timedelta = min(self.first_pause * 2**doublings, self.longest_pause)
        return full * (1 - JITTER * random.random())


DEFAULT_POLICY = RetryPolicy()


@dataclass(frozen=True)
class Settling:
    """How long a study waits for more radiographs before work on it begins.

    Attributes:
        pause: after its latest instance.
        limit: after its first instance, however many follow. While a worker has the job, instances that arrive later
            than this belong to a further version.
    """

    pause: timedelta
    limit: timedelta = timedelta(seconds=60)


@dataclass(frozen=True)
class QueueCounts:
    """The length of the queue, for /metrics.

    Attributes:
        states: number of jobs in each state.
        overdue: time since the earliest attempt was due that no worker has started.
        left_alone: number of instances that were accepted and not analyzed, by reason.
        refusals: number of instances that were refused, by reason.
    """

    states: Mapping[JobState, int]
    overdue: timedelta
    left_alone: Mapping[str, int]
    refusals: Mapping[str, int]


@dataclass(frozen=True)
class Arrival:
    """What is known about an instance besides its file.

    Attributes:
        checkpoint: id of the network that is to judge it, as far as the receiver knows.
        archive: name of the archive that the results go to; None keeps them here.
    """

    study_uid: str
    patient: Patient
    checkpoint: str
    archive: str | None
    source: Source


@dataclass(frozen=True)
class Job:
    """The analysis of one version of a study, that is, of the radiographs that had arrived when work on it began.

    Attributes:
        id: opaque.
        study_id: opaque; the same for all versions of a study.
        version: 1 for the first radiographs, and one more whenever radiographs arrive after the answer.
        checkpoint: id of the network that judged it; until then, of the one that is expected to.
        archive: name of the archive that the results go to; None keeps them here.
        fetched_from: name of the archive that the study is fetched from, in addition to
            what was sent; None fetches nothing.
        attempts: started since the job was created or last restarted.
        due: UTC; when the next attempt may start. For a running job, when its lease expires.
        reason: a sentence about the latest failure, or about what was left out.
        opened: when its first instance arrived, or when it was last restarted.
        answered: when its results were stored or it was refused; None before that.
        basis: keyed digest of what the answer follows from: equal ones have equal results.
        left_out: a sentence about the radiographs that the answer does not cover; None if there are none.
        instances: number of radiographs that arrived for this version.
        owner: name of the worker that leases it, or leased it last.
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
        """Whether it is open and has no answer yet."""
        return self.state in OPEN and self.answered is None

    def accepts_instance(self, now: datetime, settling: Settling) -> bool:
        """Whether an instance that arrives now belongs to this version; a long attempt is not restarted for it."""
        return self.is_undecided and (self.state == JobState.WAITING or now < self.opened + settling.limit)

    def restarted(self, now: datetime, pause: timedelta = timedelta(0)) -> Self:
        """Reset the attempts; results that are stored stay valid."""
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
        """Add an instance. A running job starts over, and its attempt does not count."""
        due = min(now + settling.pause, max(self.opened + settling.limit, now))
        more = replace(self.with_lease_revoked(now), instances=self.instances + 1, changed=now)
        # A job that has failed before keeps its pause.
        return replace(more, due=due if more.attempts == 0 else max(more.due, due))

    def with_lease_revoked(self, now: datetime) -> Self:
        """Revoke the lease of a running job; the attempt does not count. Other jobs stay unchanged."""
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
        """Lease the job to a worker and count the attempt."""
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
        """Whether the policy allows no further attempt."""
        return self.attempts >= policy.attempts

    def postponed(self, reason: str, policy: RetryPolicy, now: datetime) -> Self:
        """End an attempt without an answer; the job is dead if the attempts are used up."""
        state = JobState.DEAD if self.has_used_up(policy) else JobState.WAITING
        return replace(self, state=state, due=now + policy.pause(self.attempts), reason=reason, changed=now)

    def purged(self, now: datetime) -> Self:
        """Mark a dead job as purged: only its row is left."""
        reason = f"{self.reason} The radiographs of the study have been deleted since; send them again."
        return replace(self, instances=0, reason=reason, changed=now, answered=None, basis=None, left_out=None)

    def answer_stored(self, checkpoint: str, basis: str, left_out: str | None, now: datetime) -> Self:
        """Record that the results are stored."""
        return replace(self, checkpoint=checkpoint, basis=basis, left_out=left_out, answered=now, changed=now)

    def finished(self, state: JobState, reason: str | None, now: datetime) -> Self:
        """End the job in a final state."""
        return replace(self, state=state, reason=reason, due=now, changed=now, answered=self.answered or now)
