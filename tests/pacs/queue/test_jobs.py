"""All radiographs before a study's answer, in any order, give one job and one pair of results; on both databases."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from pacs.instance import Instance
from pacs.queue.errors import LeaseLostError, SpoolFullError
from pacs.queue.jobs import Job, Jobs, JobState, RetryPolicy
from tests.pacs.conftest import Place
from tests.pacs.studies import (
    ANSWER,
    ARCHIVE,
    CHECKPOINT,
    LEASE,
    SETTLE,
    SETTLING,
    STUDY,
    Clock,
    arrival,
    file,
    keep,
    lease_due,
    pair,
    send,
    start_job,
)


def test_instances_of_several_requests_are_one_job_and_come_back_byte_for_byte(jobs: Jobs, place: Place) -> None:
    first, second, again = send(jobs, 1), send(jobs, 2), send(jobs, 1)
    assert first.id == second.id == again.id
    assert (first.instances, again.instances) == (1, 2)
    assert list(place.jobs().repository.instances(first.id)) == [file(1), file(2)]
    assert place.jobs().repository.find(first.id) == again
    assert (again.archive, again.source, again.state) == (ARCHIVE, "stow", JobState.WAITING)


def test_study_begins_when_it_has_settled(jobs: Jobs, clock: Clock) -> None:
    send(jobs, 1)
    clock.advance(1.5)
    send(jobs, 2)
    clock.advance(1.5)
    send(jobs, 2)
    assert jobs.lease("a", LEASE) is None
    clock.advance(0.5)
    job = lease_due(jobs)
    assert (job.state, job.attempts, job.owner, job.due) == (JobState.RUNNING, 1, "a", clock.now + LEASE)


def test_jobs_are_leased_in_the_order_in_which_they_fall_due(jobs: Jobs, clock: Clock) -> None:
    studies = ["1.9", "1.5", "1.7"]
    for study in studies:
        send(jobs, study=study)
        clock.advance(1)
    clock.advance(2)
    assert [lease_due(jobs).study_uid for _ in studies] == studies
    assert jobs.lease("a", LEASE) is None


def test_lease_that_is_renewed_stays_and_one_that_is_not_goes_to_another(jobs: Jobs, clock: Clock) -> None:
    job = start_job(jobs, clock)
    clock.advance(20)
    jobs.renew(job, LEASE)
    clock.advance(20)
    assert jobs.lease("b", LEASE) is None
    clock.advance(10)
    after = lease_due(jobs, "b")
    assert (after.id, after.attempts, after.owner) == (job.id, 2, "b")


@pytest.mark.parametrize(
    "write",
    [
        lambda jobs, job: jobs.renew(job, LEASE),
        lambda jobs, job: keep(jobs, job, pair()),
        lambda jobs, job: jobs.postpone(job, "It failed."),
        lambda jobs, job: jobs.finish(job, JobState.DELIVERED),
    ],
    ids=["renew", "store_results", "postpone", "finish"],
)
def test_worker_that_lost_its_lease_writes_nothing(
    jobs: Jobs, clock: Clock, write: Callable[[Jobs, Job], object]
) -> None:
    stale = start_job(jobs, clock)
    clock.advance(31)
    job = lease_due(jobs, stale.owner or "")
    with pytest.raises(LeaseLostError):
        write(jobs, stale)
    assert jobs.repository.find(job.id) == job
    assert list(jobs.repository.instances(job.id)) == [file()]
    assert jobs.repository.results(job.id) == []
    write(jobs, job)


def test_instance_during_an_attempt_begins_the_whole_study_again(jobs: Jobs, clock: Clock) -> None:
    stale = start_job(jobs, clock)
    again = send(jobs, 1)
    assert (again.state, again.lease_number) == (JobState.RUNNING, stale.lease_number)
    grown = send(jobs, 2)
    assert (grown.state, grown.attempts, grown.due) == (JobState.WAITING, 0, clock.now + SETTLE)
    with pytest.raises(LeaseLostError):
        keep(jobs, stale, pair())
    clock.advance(2)
    job = lease_due(jobs)
    assert list(jobs.repository.instances(job.id)) == [file(1), file(2)]
    assert keep(jobs, job, pair()) == pair()


def test_results_once_kept_stand_whatever_a_later_attempt_finds(jobs: Jobs, clock: Clock) -> None:
    keep(jobs, start_job(jobs, clock), pair(1))
    clock.advance(31)
    job = lease_due(jobs)
    assert jobs.repository.results(job.id) == pair(1)
    assert keep(jobs, job, pair(2), "another") == pair(1)
    assert (jobs.repository.results(job.id), jobs.repository.answer(job.id)) == (pair(1), ANSWER)


def test_instance_for_a_job_between_attempts_keeps_its_pause(jobs: Jobs, clock: Clock) -> None:
    waiting = jobs.postpone(start_job(jobs, clock), "No answer.", RetryPolicy(first_pause=timedelta(minutes=5)))
    grown = send(jobs, 2)
    assert (grown.due, grown.attempts, grown.instances) == (waiting.due, 1, 2)


def test_study_is_requested_once(jobs: Jobs, clock: Clock) -> None:
    asked = jobs.intake.request(STUDY, CHECKPOINT, "far")
    assert jobs.intake.request(STUDY, CHECKPOINT, "far") == asked
    assert (asked.source, asked.archive, asked.fetched_from, asked.due) == ("pull", "far", "far", clock.now)
    job = lease_due(jobs)
    keep(jobs, job, pair())
    done = jobs.finish(job, JobState.DELIVERED)
    again = jobs.intake.request(STUDY, CHECKPOINT, "far")
    assert (again.version, again.state, again.fetched_from) == (done.version + 1, JobState.WAITING, "far")
    assert jobs.intake.request(STUDY, CHECKPOINT, "far") == again


def test_full_spool_takes_no_more_and_keeps_what_it_has(place: Place, clock: Clock) -> None:
    jobs = place.jobs(max_bytes=2 * len(file().data))
    job = send(jobs, 1)
    for study in (STUDY, "1.7"):
        with pytest.raises(SpoolFullError):
            send(jobs, 2, study)
    assert jobs.repository.latest(9) == [job]
    assert send(jobs, 1) == jobs.repository.find(job.id) == job
    assert list(jobs.repository.instances(job.id)) == [file(1)]
    clock.advance(2)
    running = lease_due(jobs)
    keep(jobs, running, pair())
    jobs.finish(running, JobState.DELIVERED)
    assert send(jobs, 2, "1.7").instances == 1


def test_large_instance_comes_back(place: Place) -> None:
    jobs = place.jobs(max_bytes=1 << 30)
    large = Instance("1", "2", "3", bytes(range(256)) * (1 << 13))
    job = jobs.intake.receive(arrival(archive=None), large, SETTLING)
    assert next(jobs.repository.instances(job.id)) == large
