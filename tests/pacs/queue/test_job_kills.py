"""Killed workers lose nothing, and concurrent workers never get the same job; on both databases."""

import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from pacs.queue.jobs import Job, Jobs, JobState
from tests.conftest import ROOT
from tests.pacs.conftest import Place
from tests.pacs.studies import ANSWER, LEASE, STUDY, Clock, file, keep, lease_due, pair, send

pytestmark = pytest.mark.slow

WORKER = """
import sys, time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from pacs.queue.jobs import Jobs
from pacs.queue.encryption import Cipher
from tests.pacs.studies import file, keep, pair, send, lease_due

address, key, point = sys.argv[1:]
later = timedelta()
jobs = Jobs(address, Cipher.from_key_file(Path(key)), 1 << 20, lambda: datetime.now(UTC) + later)

def reach(name):
    if name == point:
        print("there", flush=True)
        time.sleep(60)

def in_transaction(connection):
    reach("receiving")

jobs.intake._enforce_limit = in_transaction
send(jobs, 1)
send(jobs, 2)
reach("received")
later = timedelta(seconds=3)
job = lease_due(jobs)
reach("leased")
keep(jobs, job, pair())
reach("kept")
"""
DRAIN = """
import sys
from datetime import timedelta
from pathlib import Path
from pacs.queue.jobs import Jobs, JobState
from pacs.queue.encryption import Cipher

address, key, owner = sys.argv[1:]
jobs = Jobs(address, Cipher.from_key_file(Path(key)), 1 << 20)
sys.stdin.readline()
while (job := jobs.lease(owner, timedelta(seconds=30))) is not None:
    print(job.study_uid, job.lease_number, flush=True)
    jobs.finish(job, JobState.REFUSED)
"""


def program(text: str, place: Place, argument: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", text, place.address, str(place.key), argument]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def after_kill_at(point: str, place: Place) -> Jobs:
    """Kill a worker at a point and return the jobs after its lease has expired."""
    with program(WORKER, place, point) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "there\n"
        worker.send_signal(signal.SIGKILL)
    place.clock.now = datetime.now(UTC) + timedelta(minutes=5)
    return place.jobs()


def finished(jobs: Jobs, job: Job) -> None:
    """Finish the job and check that there is exactly one pair of results."""
    results = jobs.repository.results(job.id) or keep(jobs, job, pair(2))
    jobs.finish(job, JobState.KEPT)
    assert jobs.repository.kept_results(STUDY) == results
    assert send(jobs, 1).state == JobState.KEPT
    assert jobs.repository.counts() == dict.fromkeys(JobState, 0) | {JobState.KEPT: 1}


def test_kill_in_the_middle_of_receiving_leaves_nothing_half_done(place: Place, clock: Clock) -> None:
    jobs = after_kill_at("receiving", place)
    assert (jobs.repository.latest(1), jobs.repository.stored_bytes()) == ([], 0)
    send(jobs, 1)
    clock.advance(2)
    finished(jobs, lease_due(jobs))


def test_kill_after_receiving_loses_no_instance(place: Place) -> None:
    jobs = after_kill_at("received", place)
    job = lease_due(jobs)
    assert (job.attempts, list(jobs.repository.instances(job.id))) == (1, [file(1), file(2)])
    finished(jobs, job)


def test_kill_during_an_attempt_brings_the_job_to_another_worker(place: Place) -> None:
    jobs = after_kill_at("leased", place)
    job = lease_due(jobs, "b")
    assert (job.attempts, job.owner, list(jobs.repository.instances(job.id))) == (2, "b", [file(1), file(2)])
    finished(jobs, job)


def test_kill_after_the_results_were_kept_sends_the_same_bytes(place: Place) -> None:
    jobs = after_kill_at("kept", place)
    job = lease_due(jobs)
    assert (jobs.repository.results(job.id), jobs.repository.answer(job.id)) == (pair(1), ANSWER)
    finished(jobs, job)
    assert jobs.repository.kept_results(STUDY) == pair(1)


def test_lease_of_a_killed_worker_holds_until_it_expires(place: Place, clock: Clock) -> None:
    jobs = after_kill_at("leased", place)
    running = jobs.repository.latest(1)[0]
    clock.now = running.due - timedelta(seconds=1)
    assert jobs.lease("b", LEASE) is None
    clock.advance(1)
    assert lease_due(jobs, "b").id == running.id


def test_threads_that_lease_at_once_never_get_the_same_job(place: Place, clock: Clock) -> None:
    jobs, studies = place.jobs(), [f"1.{number}" for number in range(20)]
    replicas = [jobs, place.jobs()]
    for study in studies:
        send(jobs, study=study)
    clock.advance(2)

    def drain(replica: Jobs) -> list[str]:
        found = []
        while (job := replica.lease("a", LEASE)) is not None:
            found.append(job.study_uid)
        return found

    with ThreadPoolExecutor(6) as threads:
        leased = [study for found in threads.map(drain, replicas * 3) for study in found]
    assert sorted(leased) == sorted(studies)


def test_threads_that_receive_at_once_make_one_job_with_each_instance_once(place: Place) -> None:
    replicas = [place.jobs(), place.jobs()]
    with ThreadPoolExecutor(6) as threads:
        sent = list(threads.map(lambda number: send(replicas[number % 2], number % 5), range(20)))
    (job,) = replicas[0].repository.latest(9)
    assert {each.id for each in sent} == {job.id}
    assert sorted(each.instance_uid for each in replicas[0].repository.instances(job.id)) == [
        file(number).instance_uid for number in range(5)
    ]
    assert job.instances == 5


def test_processes_that_lease_at_once_never_get_the_same_job(place: Place) -> None:
    place.clock.now = datetime.now(UTC) - timedelta(minutes=1)
    workers = [program(DRAIN, place, str(owner)) for owner in range(2)]
    jobs, studies = place.jobs(), [f"1.{number}" for number in range(12)]
    for study in studies:
        send(jobs, study=study)
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    leased = Counter(line for worker in workers for line in worker.communicate()[0].splitlines())
    assert leased == Counter({f"{study} 1": 1 for study in studies})


def test_processes_that_open_a_new_database_at_once_all_can(place: Place) -> None:
    with ThreadPoolExecutor(6) as threads:
        replicas = list(threads.map(lambda _: place.jobs(), range(6)))
    job = send(replicas[0])
    assert all(replica.repository.find(job.id) == job for replica in replicas)
