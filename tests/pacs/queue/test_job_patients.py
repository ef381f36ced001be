"""A study belongs to its first patient, and radiographs of other patients are refused; on both databases."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from pacs.queue.errors import LeaseLostError, OtherPatientError
from pacs.queue.jobs import Job, Jobs, JobState, RetryPolicy
from tests.pacs.conftest import Place
from tests.pacs.studies import ARCHIVE, CHECKPOINT, LEASE, PATIENT, STRANGER, STUDY, Clock, file, keep, lease_due, send
from xray.images.patient_identity import Patient

NOBODY = Patient()
MOMENTS = ("waiting", "running", "kept", "delivered", "refused", "dead")


def at(moment: str, jobs: Jobs, clock: Clock) -> Job:
    job = send(jobs, 1)
    if moment == "waiting":
        return job
    clock.advance(2)
    job = lease_due(jobs)
    if moment in ("kept", "delivered"):
        keep(jobs, job)
    if moment == "dead":
        return jobs.postpone(job, "It failed.", RetryPolicy(attempts=1))
    return job if moment == "running" else jobs.finish(job, JobState(moment))


@pytest.mark.parametrize("moment", MOMENTS)
def test_second_patient_in_a_study_is_refused_and_changes_nothing(jobs: Jobs, clock: Clock, moment: str) -> None:
    job = at(moment, jobs, clock)
    for number in (1, 2):
        with pytest.raises(OtherPatientError):
            send(jobs, number, patient=STRANGER)
    assert jobs.repository.latest(9) == [job]
    assert list(jobs.repository.instances(job.id)) == [file(1)]
    assert send(jobs, 2).study_uid == STUDY


SAME = {
    "as it was": PATIENT,
    "name corrected": replace(PATIENT, name="married bird"),
    "issuer added": replace(PATIENT, issuer="ward"),
    "sex added": replace(PATIENT, sex="f"),
    "date of birth missing": replace(PATIENT, birth_date=""),
}
OTHERS = {
    "another identifier": replace(PATIENT, id="4712"),
    "no identifier": replace(PATIENT, id=""),
    "nothing": NOBODY,
    "another date of birth": replace(PATIENT, birth_date="19010204"),
    "another name and no date of birth": replace(PATIENT, birth_date="", name="other bird"),
}


@pytest.mark.parametrize("patient", SAME.values(), ids=SAME.keys())
def test_same_patient_written_otherwise_is_the_same(jobs: Jobs, patient: Patient) -> None:
    first = send(jobs, 1)
    assert send(jobs, 2, patient=patient).id == first.id


@pytest.mark.parametrize("patient", OTHERS.values(), ids=OTHERS.keys())
def test_patient_that_may_be_another_is_refused_in_either_order(jobs: Jobs, patient: Patient) -> None:
    for study, (one, other) in {"1.5": (PATIENT, patient), "1.6": (patient, PATIENT)}.items():
        send(jobs, 1, study, patient=one)
        with pytest.raises(OtherPatientError):
            send(jobs, 2, study, patient=other)


def test_what_a_later_view_adds_of_the_patient_is_held_against_the_next(jobs: Jobs) -> None:
    send(jobs, 1, patient=replace(PATIENT, sex=""))
    send(jobs, 2, patient=replace(PATIENT, sex="f", issuer="ward"))
    for contradiction in ({"sex": "m"}, {"issuer": "another"}):
        with pytest.raises(OtherPatientError):
            send(jobs, 3, patient=replace(PATIENT, **contradiction))


def test_patients_without_identifier_are_told_apart_by_name(jobs: Jobs) -> None:
    send(jobs, 1, patient=Patient(name="unknown one"))
    assert send(jobs, 2, patient=Patient(name="unknown one")).instances == 2
    for other in (Patient(name="unknown two"), NOBODY):
        with pytest.raises(OtherPatientError):
            send(jobs, 3, patient=other)
    send(jobs, 1, "1.7", patient=NOBODY)
    assert send(jobs, 2, "1.7", patient=NOBODY).instances == 2


def test_two_patients_in_the_same_instant_are_one_owner_and_one_refused(place: Place) -> None:
    replicas = [place.jobs(), place.jobs()]

    def try_to_send(number: int) -> bool:
        try:
            send(replicas[number % 2], number + 1, patient=(PATIENT, STRANGER)[number % 2])
        except OtherPatientError:
            return False
        return True

    with ThreadPoolExecutor(6) as threads:
        taken_in = list(threads.map(try_to_send, range(8)))
    assert taken_in in ([True, False] * 4, [False, True] * 4)
    (job,) = replicas[0].repository.latest(9)
    assert job.instances == 4


def test_owner_of_a_study_that_is_fetched_is_whom_the_archive_names(jobs: Jobs, clock: Clock) -> None:
    jobs.intake.request(STUDY, CHECKPOINT, ARCHIVE)
    send(jobs, 1, patient=STRANGER)
    with pytest.raises(OtherPatientError):
        send(jobs, 2)  # of those who send into it, the first is heard until the archive speaks
    clock.advance(2)
    job = lease_due(jobs)
    jobs.intake.assign_patient(job, PATIENT)
    with pytest.raises(OtherPatientError):
        jobs.intake.assign_patient(job, STRANGER)
    with pytest.raises(OtherPatientError):
        send(jobs, 3, patient=STRANGER)
    assert send(jobs, 4).id == job.id


def test_worker_without_its_lease_claims_nothing(jobs: Jobs, clock: Clock) -> None:
    jobs.intake.request(STUDY, CHECKPOINT, ARCHIVE)
    stale = lease_due(jobs)
    clock.advance(LEASE.total_seconds())
    lease_due(jobs, "b")
    with pytest.raises(LeaseLostError):
        jobs.intake.assign_patient(stale, STRANGER)
    assert send(jobs, 1).instances == 1


def test_refusals_are_counted_by_study_and_reason(jobs: Jobs) -> None:
    first, other = send(jobs, 1), send(jobs, 1, study="1.7")
    assert [jobs.intake.count_refusal(STUDY, "other patient") for _ in range(2)] == [first.id, first.id]
    jobs.intake.count_refusal(STUDY, "other content")
    assert jobs.intake.count_refusal("1.8", "other patient") is None
    told = jobs.repository.relations([first, other])
    assert [each.refused for each in told] == [{"other patient": 2, "other content": 1}, {}]
    assert jobs.repository.refusals() == {"other patient": 3, "other content": 1}
