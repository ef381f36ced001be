"""Radiographs that arrive after the answer create a further version of their study; none is lost."""

import random
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from pacs.instance import Instance
from pacs.queue.errors import LeaseLostError, OtherContentError, SpoolFullError
from pacs.queue.file_store import ExaminedInstance
from pacs.queue.jobs import Job, Jobs, JobState, RetryPolicy
from tests.pacs.conftest import Place
from tests.pacs.studies import (
    ARCHIVE,
    CHECKPOINT,
    LEASE,
    LONGEST,
    SETTLE,
    SETTLING,
    STUDY,
    Clock,
    arrival,
    examined_instances,
    file,
    keep,
    lease_due,
    send,
    start_job,
)

pytestmark = pytest.mark.slow


def pair_of(job: Job) -> list[Instance]:
    return [Instance(f"9.{kind}", f"9.{kind}.{job.version}", "1.2", job.id.encode()) for kind in (1, 2)]


def answered(jobs: Jobs, clock: Clock, state: JobState = JobState.DELIVERED) -> Job:
    """Process the study's latest version to its end."""
    clock.advance(LONGEST.total_seconds())
    job = lease_due(jobs)
    if state != JobState.REFUSED:
        keep(jobs, job, pair_of(job))
    return jobs.finish(job, state)


def numbers(jobs: Jobs, job: Job) -> list[int]:
    """Return the numbers of a job's radiographs."""
    return sorted(int(each.instance_uid.rpartition(".")[2]) for each in jobs.repository.instances(job.id))


@pytest.mark.parametrize("state", [JobState.DELIVERED, JobState.KEPT, JobState.REFUSED])
def test_late_view_gets_a_further_version_with_all_views(jobs: Jobs, clock: Clock, state: JobState) -> None:
    send(jobs, 1)
    first = answered(jobs, clock, state)
    second = send(jobs, 2)
    assert (second.version, second.state, second.due) == (2, JobState.WAITING, clock.now + SETTLE)
    assert second.id != first.id
    assert jobs.repository.find(first.id) == first
    done = answered(jobs, clock, JobState.KEPT)
    assert done.id == second.id
    assert numbers(jobs, done) == [1, 2]
    assert jobs.repository.kept_results(STUDY) == pair_of(done)


def test_versions_name_each_other(jobs: Jobs, clock: Clock) -> None:
    send(jobs, 1)
    first = answered(jobs, clock)
    send(jobs, 2)
    assert [each.superseded_by for each in jobs.repository.relations([first])] == [None]
    second = answered(jobs, clock)
    told = jobs.repository.relations([first, second])
    assert [each.superseded_by for each in told] == [second.id, None]
    assert [each.supersedes for each in told] == [None, first.id]
    replaced = jobs.repository.superseded_results(second, second.basis or "")
    assert [each.instance_uid for each in replaced] == [each.instance_uid for each in pair_of(first)]


def test_view_that_comes_during_delivery_waits_for_its_end(jobs: Jobs, clock: Clock) -> None:
    send(jobs, 1)
    clock.advance(2)
    first = lease_due(jobs)
    keep(jobs, first, pair_of(first))
    second = send(jobs, 2)
    clock.advance(5)
    assert second.version == 2
    assert jobs.lease("b", LEASE) is None
    assert jobs.repository.overdue() == timedelta(0)
    jobs.finish(first, JobState.DELIVERED)
    assert lease_due(jobs).id == second.id


def test_view_every_second_and_a_half_keeps_no_study_waiting_for_ever(jobs: Jobs, clock: Clock) -> None:
    started, number = clock.now, 1
    first = send(jobs, number)
    while (job := jobs.lease("a", LEASE)) is None:
        clock.advance(1.5)
        number += 1
        assert clock.now < started + 2 * LONGEST
        assert send(jobs, number).id == first.id
    assert clock.now <= started + LONGEST + timedelta(seconds=1.5)
    assert numbers(jobs, job) == list(range(1, number + 1))


def test_stream_of_views_withdraws_no_lease_for_ever(jobs: Jobs, clock: Clock) -> None:
    start_job(jobs, clock)
    clock.advance(20)
    assert send(jobs, 2).version == 1
    clock.advance(LONGEST.total_seconds())
    job = lease_due(jobs)
    further = send(jobs, 3)
    assert further.version == 2
    keep(jobs, job, pair_of(job))
    assert jobs.finish(job, JobState.DELIVERED).version == 1
    clock.advance(1.5)
    assert send(jobs, 4).id == further.id
    assert numbers(jobs, answered(jobs, clock)) == [1, 2, 3, 4]


def other_bytes(number: int) -> Instance:
    instance = file(number)
    return replace(instance, data=instance.data[:-1] + bytes([instance.data[-1] ^ 1]))


@pytest.mark.parametrize("moment", ["waiting", "running", "answered"])
def test_other_content_under_the_same_uid_is_refused_and_changes_nothing(jobs: Jobs, clock: Clock, moment: str) -> None:
    job = send(jobs, 1)
    if moment == "running":
        clock.advance(2)
        job = lease_due(jobs)
    elif moment == "answered":
        job = answered(jobs, clock)
    with pytest.raises(OtherContentError):
        jobs.intake.receive(arrival(), other_bytes(1), SETTLING)
    assert jobs.repository.latest(9) == [job]
    assert list(jobs.repository.instances(job.id)) == [file(1)]
    assert send(jobs, 1) == job


def test_same_tags_behind_another_meta_header_are_the_same_content(jobs: Jobs, clock: Clock) -> None:
    job, data = send(jobs, 1), file(1).data
    end = 144 + int.from_bytes(data[140:144], "little")
    private = data[144:end] + b"\x02\x00\x16\x00AE\x06\x00SENDER"
    other = bytes(128) + data[128:140] + len(private).to_bytes(4, "little") + private + data[end:]
    assert jobs.intake.receive(arrival(), replace(file(1), data=other), SETTLING) == job


def test_further_version_whose_earlier_files_are_gone_has_them_again_when_they_are_sent(
    jobs: Jobs, clock: Clock
) -> None:
    send(jobs, 1)
    answered(jobs, clock)
    jobs.purge_answered(timedelta(0))
    second = send(jobs, 2)
    assert [(each.instance.instance_uid[-1], each.has_data) for each in jobs.repository.radiographs(second)] == [
        ("1", False),
        ("2", True),
    ]
    assert send(jobs, 1).id == second.id
    assert numbers(jobs, answered(jobs, clock)) == [1, 2]


def test_file_that_the_latest_answer_had_to_do_without_makes_a_version_when_it_is_sent(
    jobs: Jobs, clock: Clock
) -> None:
    send(jobs, 1)
    answered(jobs, clock)
    jobs.purge_answered(timedelta(0))
    send(jobs, 2)
    assert numbers(jobs, answered(jobs, clock)) == [2]
    third = send(jobs, 1)
    assert third.version == 3
    assert numbers(jobs, answered(jobs, clock)) == [1, 2]
    assert send(jobs, 1).id == third.id


def test_same_study_for_another_network_gets_a_version_from_the_service_alone(jobs: Jobs, clock: Clock) -> None:
    send(jobs, 1)
    first = answered(jobs, clock)
    assert send(jobs, 1, source="store", checkpoint="another") == first
    assert send(jobs, 1, checkpoint="another").version == 2


def test_same_answer_once_more_has_the_same_uids_and_another_has_others(jobs: Jobs, clock: Clock) -> None:
    send(jobs, 1)
    first = answered(jobs, clock)
    assert first.basis is not None
    jobs.intake.request(STUDY, CHECKPOINT, ARCHIVE)
    again = answered(jobs, clock)
    assert (again.version, again.basis) == (2, first.basis)
    assert again.basis is not None
    assert (
        jobs.repository.superseded_results(again, again.basis)
        == jobs.repository.superseded_results(first, first.basis)
        == []
    )
    assert jobs.seed(again.basis, []) == jobs.seed(first.basis, [])
    other = jobs.basis(again, ["another"])
    assert jobs.seed(other, jobs.repository.superseded_results(again, other)) != jobs.seed(first.basis, [])


def test_seed_of_another_site_is_another(tmp_path: Path) -> None:
    one, other = (Place(f"sqlite:///{tmp_path / name}", tmp_path / f"{name} key").jobs() for name in ("a", "b"))
    job = send(one)
    assert one.basis(job, ["a"]) != other.basis(job, ["a"])
    assert one.seed("a", []) != other.seed("a", [])


def test_request_for_a_study_that_was_sent_joins_both(jobs: Jobs, clock: Clock) -> None:
    sent = send(jobs, 1)
    asked = jobs.intake.request(STUDY, CHECKPOINT, ARCHIVE)
    assert (asked.id, asked.fetched_from) == (sent.id, ARCHIVE)
    clock.advance(2)
    running = lease_due(jobs)
    assert (running.fetched_from, numbers(jobs, running)) == (ARCHIVE, [1])


def test_request_during_an_attempt_begins_it_again_with_what_the_archive_has(jobs: Jobs, clock: Clock) -> None:
    stale = start_job(jobs, clock)
    asked = jobs.intake.request(STUDY, CHECKPOINT, ARCHIVE)
    with pytest.raises(LeaseLostError):
        keep(jobs, stale)
    again = lease_due(jobs)
    assert (again.id, again.fetched_from, again.attempts) == (asked.id, ARCHIVE, 1)


def test_view_sent_into_a_study_that_is_fetched_is_in_its_job(jobs: Jobs, clock: Clock) -> None:
    jobs.intake.request(STUDY, CHECKPOINT, ARCHIVE)
    stale = lease_due(jobs)
    grown = send(jobs, 1)
    assert (grown.id, grown.state) == (stale.id, JobState.WAITING)
    with pytest.raises(LeaseLostError):
        keep(jobs, stale)
    first = answered(jobs, clock)
    assert numbers(jobs, first) == [1]
    late = send(jobs, 2)
    assert (late.version, late.fetched_from, late.archive) == (2, ARCHIVE, ARCHIVE)


def test_dead_study_takes_no_room_from_others_and_has_a_limit_of_its_own(place: Place, clock: Clock) -> None:
    size = len(file().data)
    jobs = place.jobs(max_bytes=2 * size)
    for study in ("1.5", "1.6", "1.7"):
        send(jobs, study=study)
        clock.advance(2)
        jobs.postpone(lease_due(jobs), "It failed.", RetryPolicy(attempts=1))
    assert send(jobs, study="1.8").instances == 1
    with pytest.raises(SpoolFullError):
        send(jobs, 2, study="1.8")
    assert jobs.purge_dead(timedelta(days=30)) == 2
    left = {job.study_uid: numbers(jobs, job) for job in jobs.repository.latest(9)}
    assert left == {"1.5": [], "1.6": [], "1.7": [1], "1.8": [1]}


def test_answered_files_give_way_to_new_ones_the_oldest_first(place: Place, clock: Clock) -> None:
    jobs = place.jobs(max_bytes=3 * len(file().data))
    for study in ("1.5", "1.6"):
        send(jobs, study=study)
        answered(jobs, clock)
    send(jobs, 1, study="1.7")
    send(jobs, 2, study="1.7")
    left = {job.study_uid: numbers(jobs, job) for job in jobs.repository.latest(9)}
    assert left == {"1.5": [], "1.6": [], "1.7": [1, 2]}


def test_dead_job_that_a_later_one_has_answered_for_stays_dead(jobs: Jobs, clock: Clock) -> None:
    send(jobs, 1)
    clock.advance(2)
    first = lease_due(jobs)
    keep(jobs, first, pair_of(first))
    dead = jobs.postpone(first, "The archive is away.", RetryPolicy(attempts=1))
    send(jobs, 2)
    answered(jobs, clock)
    assert jobs.retry(dead.id) == dead


@pytest.mark.parametrize("seed", range(12))
def test_every_view_that_was_taken_is_in_the_latest_answer_whatever_came_in_which_order(
    jobs: Jobs, clock: Clock, seed: int
) -> None:
    events, sent, running = random.Random(seed), set[int](), list[tuple[Job, list[ExaminedInstance]]]()
    for _ in range(40):
        clock.advance(events.choice((0.5, 1.5, 3, 20, 40)))
        match events.randrange(8):
            case 0 | 1 | 2:
                number = events.randrange(1, 8)
                send(jobs, number)
                sent.add(number)
            case 3 | 4:
                if (job := jobs.lease("a", LEASE)) is not None:
                    running.append((job, examined_instances(jobs, job)))
            case 5 if running:
                _end(jobs, *running.pop(), events)
            case 6:
                jobs.intake.request(STUDY, CHECKPOINT, ARCHIVE)
            case 7:
                send(jobs, events.randrange(1, 8), study="1.7")
    while True:
        clock.advance(3600)
        if (job := jobs.lease("b", LEASE, RetryPolicy(attempts=1000))) is None:
            break
        keep(jobs, job, pair_of(job))
        jobs.finish(job, JobState.DELIVERED)
    last = next((job for job in jobs.repository.latest(99, study_uid=STUDY) if job.basis is not None), None)
    judged = (
        {int(each.instance.instance_uid[-1]): each.judged for each in jobs.repository.radiographs(last)} if last else {}
    )
    assert judged == dict.fromkeys(sent, last.version if last else 0)


def _end(jobs: Jobs, job: Job, looked: list[ExaminedInstance], events: random.Random) -> None:
    """End a job like a worker that may be slow, fail or be killed between two writes."""
    with suppress(LeaseLostError):
        if events.random() < 0.3:
            jobs.postpone(job, "It failed.", RetryPolicy(attempts=1000))
        elif events.random() < 0.8:
            keep(jobs, job, pair_of(job), looked=looked)
            if events.random() < 0.7:
                jobs.finish(job, JobState.DELIVERED)
