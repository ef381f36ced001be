"""What a study on its way is, and how each event changes it. Nothing is stored here."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal, Self

from xray.images.patient import Patient

Source = Literal["stow", "store", "pull"]
"""STOW-RS, C-STORE, or fetched from an archive on request."""
JITTER = 0.2
"""Share of a pause by which it may be shorter, so that many jobs do not come back at once."""


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
    """Final until the same is sent again: nothing in the study can be judged."""
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
class Settling:
    """When a study that still grows is begun.

    Attributes:
        pause: after its latest instance.
        most: after its first; what comes later, while it is worked on, is for a further version.
    """

    pause: timedelta
    most: timedelta = timedelta(seconds=60)


@dataclass(frozen=True)
class QueueCounts:
    """How full the queue is.

    Attributes:
        states: studies by the state of their latest job.
        overdue: time since an attempt was due that no worker has begun.
        left_alone: instances that were accepted and not analyzed, by reason.
        refusals: instances that were not taken into a study, by reason.
    """

    states: Mapping[JobState, int]
    overdue: timedelta
    left_alone: Mapping[str, int]
    refusals: Mapping[str, int]


@dataclass(frozen=True)
class Arrival:
    """What is known of an instance beside its file.

    Attributes:
        checkpoint: of the network that is to judge it, as far as the receiver knows.
        archive: that results go to; None keeps them here.
    """

    study_uid: str
    patient: Patient
    checkpoint: str
    archive: str | None
    source: Source


@dataclass(frozen=True)
class Job:
    """One version of one study: what had come of it when its work began.

    Attributes:
        id: opaque.
        study_id: opaque; the same for all versions of a study.
        version: 1 for what came first, and one more for what came after that was answered.
        checkpoint: of the network that judged it; until then, of the one that is expected to.
        archive: name of the archive that the results go to; None keeps them here.
        fetched_from: name of the archive that the study is fetched from, beside what was sent; None fetches nothing.
        attempts: that were begun since the job was last begun anew.
        due: UTC; when the next attempt may begin. Of a running job, when its lease ends.
        reason: a sentence about what went wrong last, or what was left out.
        opened: when its first instance came, or it was last begun anew.
        answered: when its results were stored or it was refused; None while it has no answer.
        basis: what the answer follows from, as a keyed digest: equal ones have equal results.
        left_out: a sentence about the radiographs that the answer is not about; None while there is none.
        instances: that came for this version.
        owner: the worker that has it, or had it last.
        lease_number: grows with each lease and each withdrawal of one; who holds an older one has lost the job.
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
        """It will have an answer, and has none yet."""
        return self.state in OPEN and self.answered is None

    def takes_more(self, now: datetime, settling: Settling) -> bool:
        """Whether an instance that comes now is for this version; one that has long run is not begun again for it."""
        return self.is_undecided and (self.state == JobState.WAITING or now < self.opened + settling.most)

    def anew(self, now: datetime, settle: timedelta = timedelta(0)) -> Self:
        """As if it had not been tried; results that are there stand."""
        answered = None if self.basis is None else self.answered
        return replace(
            self,
            state=JobState.WAITING,
            attempts=0,
            due=now + settle,
            reason=None,
            opened=now,
            changed=now,
            answered=answered,
        )

    def grown(self, now: datetime, settling: Settling) -> Self:
        """An instance came. A job that is running starts over, and that attempt does not count."""
        due = min(now + settling.pause, max(self.opened + settling.most, now))
        more = replace(self.withdrawn(now), instances=self.instances + 1, changed=now)
        # A job that has failed before keeps to its pause.
        return replace(more, due=due if more.attempts == 0 else max(more.due, due))

    def withdrawn(self, now: datetime) -> Self:
        """Taken from its worker, if one has it, as if that attempt had not been."""
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
        return replace(self, instances=0, reason=reason, changed=now, answered=None, basis=None, left_out=None)

    def judged(self, checkpoint: str, basis: str, left_out: str | None, now: datetime) -> Self:
        return replace(self, checkpoint=checkpoint, basis=basis, left_out=left_out, answered=now, changed=now)

    def finished(self, state: JobState, reason: str | None, now: datetime) -> Self:
        return replace(self, state=state, reason=reason, due=now, changed=now, answered=self.answered or now)
