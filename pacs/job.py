"""What a study on its way is, and how each event changes it: a job in, the changed job out. Nothing is stored here."""

import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Literal, Self

Source = Literal["stow", "store", "pull"]
"""STOW-RS, C-STORE, or fetched from an archive on request."""
JITTER = 0.2
"""Share of a pause by which it may be shorter, so that many jobs do not come back at once."""
ID_DIGITS = 32


class JobState(StrEnum):
    """How far a job is."""

    WAITING = "waiting"
    """Not begun, or between two attempts."""
    RUNNING = "running"
    """Leased to a worker, which may have been killed."""
    DELIVERED = "delivered"
    """Final: the archive was asked, and has the results."""
    KEPT = "kept"
    """Final: no archive is configured, and the results are here."""
    REFUSED = "refused"
    """Final until the study is sent again: nothing in it can be judged."""
    DEAD = "dead"
    """Final until an operator retries or the study is sent again: the attempts are used up."""


OPEN = (JobState.WAITING, JobState.RUNNING)
DONE = (JobState.DELIVERED, JobState.KEPT)
FINISHED = (*DONE, JobState.REFUSED)


@dataclass(frozen=True)
class RetryPolicy:
    """How often a job is tried, and how long it rests in between.

    Attributes:
        attempts: at most, of those that ended without an answer.
        first_pause: after the first of them; each further pause is twice as long, up to `longest_pause`.
    """

    attempts: int = 12
    first_pause: timedelta = timedelta(seconds=5)
    longest_pause: timedelta = timedelta(minutes=10)

    def pause(self, attempts: int) -> timedelta:
        """After that many attempts; up to `JITTER` shorter than its full length."""
        doublings = min(attempts - 1, 32)  # beyond which the longest pause is reached and a timedelta overflows
        full: timedelta = min(self.first_pause * 2**doublings, self.longest_pause)
        return full * (1 - JITTER * random.random())


DEFAULT_POLICY = RetryPolicy()


@dataclass(frozen=True)
class Instance:
    """A DICOM file and what it is called."""

    series_uid: str
    instance_uid: str
    sop_class_uid: str
    data: bytes


@dataclass(frozen=True)
class Job:
    """One study for one checkpoint.

    Attributes:
        id: opaque; the same study and checkpoint have the same.
        archive: name of the archive that the results go to; None keeps them here.
        attempts: that were begun since the job was last begun anew.
        due: UTC; when the next attempt may begin. Of a running job, when its lease ends.
        reason: a sentence about what went wrong last.
        instances: that came since the job was last begun anew.
        owner: the worker that has it, or had it last.
        lease_number: grows with each lease and each withdrawal of one; who holds an older one has lost the job.
    """

    id: str
    study_uid: str
    checkpoint: str
    archive: str | None
    source: Source
    state: JobState
    attempts: int
    due: datetime
    reason: str | None
    created: datetime
    changed: datetime
    instances: int
    owner: str | None = None
    lease_number: int = 0

    @classmethod
    def new(cls, study_uid: str, checkpoint: str, archive: str | None, source: Source, now: datetime) -> Self:
        digest = sha256(f"{study_uid}\n{checkpoint}".encode()).hexdigest()
        state = JobState.WAITING
        return cls(
            digest[:ID_DIGITS], study_uid, checkpoint, archive, source, state, 0, now, None, now, now, instances=0
        )

    def anew(self, now: datetime, settle: timedelta = timedelta(0)) -> Self:
        """As if it had not been tried; a refused study's instances are gone and have to come again."""
        instances = 0 if self.state == JobState.REFUSED else self.instances
        return replace(
            self, state=JobState.WAITING, attempts=0, due=now + settle, reason=None, instances=instances, changed=now
        )

    def grown(self, now: datetime, settle: timedelta) -> Self:
        """An instance came. A job that is running starts over, and that attempt does not count."""
        more = replace(self, instances=self.instances + 1, changed=now)
        if self.state == JobState.RUNNING:
            more = replace(
                more, state=JobState.WAITING, attempts=self.attempts - 1, due=now, lease_number=self.lease_number + 1
            )
        # A job that has failed before keeps to its pause.
        return replace(more, due=now + settle if more.attempts == 0 else max(more.due, now + settle))

    def leased(self, owner: str, now: datetime, lease: timedelta) -> Self:
        return replace(
            self,
            state=JobState.RUNNING,
            attempts=self.attempts + 1,
            due=now + lease,
            changed=now,
            owner=owner,
            lease_number=self.lease_number + 1,
        )

    def used_up(self, policy: RetryPolicy) -> bool:
        return self.attempts >= policy.attempts

    def postponed(self, reason: str, policy: RetryPolicy, now: datetime) -> Self:
        """Dead where the attempts are used up."""
        state = JobState.DEAD if self.used_up(policy) else JobState.WAITING
        return replace(self, state=state, due=now + policy.pause(self.attempts), reason=reason, changed=now)

    def emptied(self, now: datetime) -> Self:
        """Nothing is left of a dead one but its row."""
        reason = f"{self.reason} What came of the study was deleted since; send it again."
        return replace(self, instances=0, reason=reason, changed=now)

    def finished(self, state: JobState, reason: str | None, now: datetime) -> Self:
        return replace(self, state=state, reason=reason, due=now, changed=now)
