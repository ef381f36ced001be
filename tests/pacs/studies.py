"""Studies for tests of jobs, with the canary's name in them, and what usually happens to them in whose time."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from pacs.jobs import Instance, Job, Jobs
from tests.dicom_files import CANARY, dicom

STUDY, CHECKPOINT, ARCHIVE = "1.2.3", "bab1e6de5b03", "ward"
CLASS = "1.2.840.10008.5.1.4.1.1.1.1.1"
SETTLE, LEASE = timedelta(seconds=2), timedelta(seconds=30)
ANSWER = '{"resourceType": "DiagnosticReport"}'


@dataclass
class Clock:
    """Tells the time that it was set to."""

    now: datetime = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def file(number: int = 1) -> Instance:
    """The n-th radiograph of a study."""
    uid = f"{STUDY}.1.{number}"
    data = dicom(np.full((16, 16), number, np.uint8), StudyInstanceUID=STUDY, SOPInstanceUID=uid)
    return Instance(f"{STUDY}.1", uid, CLASS, data)


def pair(version: int = 1) -> list[Instance]:
    """A result pair; another version has other bytes, as another analysis may."""
    return [Instance(f"9.{kind}", f"9.{kind}.1", CLASS, f"{CANARY} {version}".encode()) for kind in (1, 2)]


def send(jobs: Jobs, number: int = 1, study: str = STUDY, archive: str | None = ARCHIVE) -> Job:
    return jobs.receive(study, CHECKPOINT, archive, "stow", file(number), SETTLE)


def taken(jobs: Jobs, owner: str = "a") -> Job:
    """The job that is due."""
    job = jobs.lease(owner, LEASE)
    assert job is not None
    return job


def begun(jobs: Jobs, clock: Clock, archive: str | None = ARCHIVE) -> Job:
    """A study that came and is being worked on."""
    send(jobs, archive=archive)
    clock.pass_by(2)
    return taken(jobs)
