"""How jobs end, what stays stored, and what restarts them; on both databases."""

from dataclasses import replace
from datetime import timedelta

import pytest

from pacs.queue.jobs import Job, Jobs, JobState, RetryPolicy
from tests.pacs.studies import (
    ANSWER,
    ARCHIVE,
    CHECKPOINT,
    LEASE,
    SETTLE,
    STUDY,
    Clock,
    file,
    keep,
    lease_due,
    pair,
    send,
    start_job,
)

TWO_ATTEMPTS = RetryPolicy(attempts=2)


def ended(jobs: Jobs, clock: Clock, state: JobState) -> Job:
    job = start_job(jobs, clock, None if state == JobState.KEPT else ARCHIVE)
    if state == JobState.DEAD:
        return jobs.postpone(job, "It failed.", RetryPolicy(attempts=1))
    if state != JobState.REFUSED:
        keep(jobs, job, pair())
    return jobs.finish(job, state, "No radiograph." if state == JobState.REFUSED else None)


@pytest.mark.parametrize("state", [JobState.DELIVERED, JobState.KEPT])
def test_study_that_is_done_is_not_done_again(jobs: Jobs, clock: Clock, state: JobState) -> None:
    job = ended(jobs, clock, state)
    clock.advance(5)
    assert send(jobs, 1) == job
    assert list(jobs.repository.instances(job.id)) == [file()]
    clock.advance(3600)
    assert jobs.lease("a", LEASE) is None
    assert jobs.repository.answer(job.id) == ANSWER


def test_answered_radiographs_are_deleted_after_their_time_and_are_still_known(jobs: Jobs, clock: Clock) -> None:
    job = ended(jobs, clock, JobState.DELIVERED)
    clock.advance(3600)
    assert jobs.purge_answered(timedelta(hours=2)) == 0
    assert list(jobs.repository.instances(job.id)) == [file()]
    clock.advance(3600)
    assert [jobs.purge_answered(timedelta(hours=2)) for _ in range(2)] == [1, 0]
    assert (list(jobs.repository.instances(job.id)), jobs.repository.stored_bytes()) == ([], 0)
    assert send(jobs, 1) == job


def test_radiographs_that_wait_for_an_answer_are_never_deleted_by_age(jobs: Jobs, clock: Clock) -> None:
    first = ended(jobs, clock, JobState.KEPT)
    further = send(jobs, 2)
    waiting = send(jobs, 1, study="1.7")
    clock.advance(3600)
    assert jobs.purge_answered(timedelta(0)) == 0
    assert list(jobs.repository.instances(further.id)) == [file(1), file(2)]
    assert list(jobs.repository.instances(waiting.id)) == [file(1)]
    assert list(jobs.repository.instances(first.id)) == [file(1)]


def test_delivered_results_leave_their_uids_and_kept_ones_stay(jobs: Jobs, clock: Clock) -> None:
    delivered = ended(jobs, clock, JobState.DELIVERED)
    assert jobs.repository.results(delivered.id) == [replace(each, data=b"") for each in pair()]
    assert jobs.repository.kept_results(STUDY) == []
    other = send(jobs, study="1.7", archive=None)
    clock.advance(2)
    job = lease_due(jobs)
    keep(jobs, job)
    assert jobs.repository.kept_results("1.7") == []
    assert jobs.finish(job, JobState.KEPT).id == other.id
    assert jobs.repository.kept_results("1.7") == jobs.repository.results(other.id) == pair()


def test_refused_study_begins_anew_when_the_same_is_sent_again(jobs: Jobs, clock: Clock) -> None:
    job = ended(jobs, clock, JobState.REFUSED)
    assert job.reason == "No radiograph."
    after = send(jobs, 1)
    assert (after.id, after.state, after.attempts, after.reason) == (job.id, JobState.WAITING, 0, None)
    assert after.due == clock.now + SETTLE
    assert list(jobs.repository.instances(job.id)) == [file(1)]


def test_dead_study_is_deleted_when_it_was_kept_for_long_enough(jobs: Jobs, clock: Clock) -> None:
    dead = ended(jobs, clock, JobState.DEAD)
    clock.advance(3600)
    assert jobs.purge_dead(timedelta(hours=2)) == 0
    assert list(jobs.repository.instances(dead.id)) == [file()]
    clock.advance(3600)
    assert [jobs.purge_dead(timedelta(hours=2)) for _ in range(2)] == [1, 0]
    assert (list(jobs.repository.instances(dead.id)), jobs.repository.stored_bytes()) == ([], 0)
    left = jobs.repository.find(dead.id)
    assert left is not None
    assert (left.state, left.instances) == (JobState.DEAD, 0)
    assert "It failed. The radiographs of the study have been deleted" in str(left.reason)
    assert send(jobs, 2).state == JobState.WAITING
    assert list(jobs.repository.instances(dead.id)) == [file(2)]


def test_dead_study_that_is_sent_again_begins_anew_with_what_was_there(jobs: Jobs, clock: Clock) -> None:
    dead = ended(jobs, clock, JobState.DEAD)
    clock.advance(3600)
    assert jobs.lease("a", LEASE) is None
    after = send(jobs, 1)
    assert (after.state, after.attempts, after.due) == (JobState.WAITING, 0, clock.now + SETTLE)
    assert send(jobs, 2).instances == 2
    assert list(jobs.repository.instances(dead.id)) == [file(1), file(2)]


def test_pauses_grow_and_end_in_a_dead_job_that_an_operator_retries(jobs: Jobs, clock: Clock) -> None:
    policy = RetryPolicy(attempts=5, first_pause=timedelta(seconds=5), longest_pause=timedelta(seconds=30))
    job, pauses = start_job(jobs, clock), []
    while (job := jobs.postpone(job, "No answer.", policy)).state == JobState.WAITING:
        pauses.append((job.due - clock.now).total_seconds())
        clock.advance(pauses[-1] - 0.001)
        assert jobs.lease("a", LEASE, policy) is None
        clock.advance(0.001)
        job = lease_due(jobs)
    assert all(0.8 * full <= pause <= full for pause, full in zip(pauses, (5, 10, 20, 30), strict=True))
    assert (job.state, job.attempts, job.reason) == (JobState.DEAD, 5, "No answer.")
    again = jobs.retry(job.id)
    assert again is not None
    assert (again.state, again.attempts, again.due, again.reason) == (JobState.WAITING, 0, clock.now, None)
    assert jobs.retry(job.id) == again
    assert jobs.retry("nobody") is None
    assert list(jobs.repository.instances(lease_due(jobs).id)) == [file()]


def test_study_that_kills_its_workers_is_dead_in_the_end(jobs: Jobs, clock: Clock) -> None:
    job = start_job(jobs, clock)
    clock.advance(31)
    assert jobs.lease("b", LEASE, TWO_ATTEMPTS) is not None
    clock.advance(31)
    assert jobs.lease("c", LEASE, TWO_ATTEMPTS) is None
    dead = jobs.repository.find(job.id)
    assert dead is not None
    assert (dead.state, dead.attempts) == (JobState.DEAD, 2)
    assert "stopped" in (dead.reason or "")


def test_request_for_what_was_kept_makes_a_version_for_that_archive(jobs: Jobs, clock: Clock) -> None:
    kept = ended(jobs, clock, JobState.KEPT)
    asked = jobs.intake.request(STUDY, CHECKPOINT, "far")
    assert (asked.version, asked.state, asked.archive) == (kept.version + 1, JobState.WAITING, "far")
    job = lease_due(jobs)
    assert list(jobs.repository.instances(job.id)) == [file(1)]
    keep(jobs, job)
    jobs.finish(job, JobState.DELIVERED)
    assert jobs.repository.kept_results(STUDY) == []
    assert jobs.repository.kept_results(STUDY, earlier=True) == pair()


def test_job_does_not_finish_in_a_state_that_is_not_final(jobs: Jobs, clock: Clock) -> None:
    job = start_job(jobs, clock)
    with pytest.raises(ValueError, match="finish"):
        jobs.finish(job, JobState.WAITING)
    assert jobs.repository.find(job.id) == job


def test_lists_and_counts_tell_how_things_are(jobs: Jobs, clock: Clock) -> None:
    assert jobs.repository.overdue() == timedelta()
    kept = ended(jobs, clock, JobState.KEPT)
    clock.advance(1)
    other = send(jobs, 2)
    waiting = send(jobs, study="1.7")
    assert jobs.repository.latest(9, study_uid=STUDY) == [other, kept]
    assert jobs.repository.latest(9, JobState.KEPT) == [kept]
    assert len(jobs.repository.latest(2)) == 2
    assert jobs.repository.counts() == dict.fromkeys(JobState, 0) | {JobState.KEPT: 1, JobState.WAITING: 2}
    assert jobs.repository.overdue() == timedelta()
    clock.now = waiting.due + timedelta(seconds=7)
    assert jobs.repository.overdue() == timedelta(seconds=7)
    assert 3 * len(file().data) < jobs.repository.stored_bytes() < 3 * len(file().data) + 100
    assert jobs.repository.find("nobody") is None
