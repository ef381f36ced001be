"""Studies with the canary's name, and the usual steps of a job, for the tests of the queue."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from pacs.instance import Instance
from pacs.queue.file_store import ExaminedInstance
from pacs.queue.jobs import Arrival, Job, Jobs, Outcome, Settling
from tests.dicom_files import CANARY, dicom
from xray.images.patient_identity import Patient

STUDY, CHECKPOINT, ARCHIVE = "1.2.3", "bab1e6de5b03", "ward"
CLASS = "1.2.840.10008.5.1.4.1.1.1.1.1"
SETTLE, LEASE = timedelta(seconds=2), timedelta(seconds=30)
LONGEST = timedelta(seconds=60)
SETTLING = Settling(SETTLE, LONGEST)
PATIENT = Patient(id="4711", birth_date="19010203", name="canary bird")
STRANGER = Patient(id="0815", birth_date="19010203", name="canary bird")
ANSWER = '{"resourceType": "DiagnosticReport"}'


@dataclass
class Clock:
    """A clock that is set by hand."""

    now: datetime = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def file(number: int = 1) -> Instance:
    """Return the n-th radiograph of a study."""
    uid = f"{STUDY}.1.{number}"
    data = dicom(np.full((16, 16), number, np.uint8), StudyInstanceUID=STUDY, SOPInstanceUID=uid)
    return Instance(f"{STUDY}.1", uid, CLASS, data)


def pair(version: int = 1) -> list[Instance]:
    """Return a pair of results; each version has its own bytes, as another analysis may."""
    return [Instance(f"9.{kind}", f"9.{kind}.1", CLASS, f"{CANARY} {version}".encode()) for kind in (1, 2)]


def arrival(study: str = STUDY, archive: str | None = ARCHIVE, patient: Patient = PATIENT, **other: Any) -> Arrival:
    return replace(Arrival(study, patient, CHECKPOINT, archive, "stow"), **other)


def send(jobs: Jobs, number: int = 1, study: str = STUDY, archive: str | None = ARCHIVE, **other: Any) -> Job:
    return jobs.intake.receive(arrival(study, archive, **other), file(number), SETTLING)


def examined_instances(jobs: Jobs, job: Job) -> list[ExaminedInstance]:
    """Return all stored radiographs of a job's study, as a worker examines them."""
    return [
        ExaminedInstance(replace(each, data=b""), jobs.digest(each.data)) for each in jobs.repository.instances(job.id)
    ]


def keep(
    jobs: Jobs,
    job: Job,
    results: Sequence[Instance] | None = None,
    answer: str = ANSWER,
    looked: Sequence[ExaminedInstance] | None = None,
) -> list[Instance]:
    """Store results as a worker does that examined these radiographs, by default all that are stored."""
    looked = examined_instances(jobs, job) if looked is None else looked
    basis = jobs.basis(job, [CHECKPOINT, *sorted(each.digest.hex() for each in looked)])
    proved = [(each, f"proof of {each.instance_uid}".encode()) for each in (pair() if results is None else results)]
    return jobs.store_results(job, Outcome(proved, answer, CHECKPOINT, basis, looked))


def lease_due(jobs: Jobs, owner: str = "a") -> Job:
    """Lease the job that is due."""
    job = jobs.lease(owner, LEASE)
    assert job is not None
    return job


def start_job(jobs: Jobs, clock: Clock, archive: str | None = ARCHIVE) -> Job:
    """Send a study and lease its job."""
    send(jobs, archive=archive)
    clock.advance(2)
    return lease_due(jobs)
