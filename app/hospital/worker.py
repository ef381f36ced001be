"""Works on jobs and delivers their results; whatever happens in between, a job is either done or comes again."""

import asyncio
import logging
import math
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import uuid4

from app.errors import RequestError
from app.hospital.analysis import MAX_LEFT_OUT, NothingToJudgeError, analyse
from app.hospital.delivery import deliver, require_same_patient
from app.hospital.gateway import Hospital
from app.hospital.gathering import Gathering
from app.inference.predictor_service import PredictorService
from pacs.errors import PacsError, StudyMissingError
from pacs.instance import Instance
from pacs.queue.errors import LeaseLostError, OtherPatientError
from pacs.queue.file_store import ExaminedInstance
from pacs.queue.jobs import Job, JobState, Outcome, RetryPolicy
from pacs.results.rendering.worker_pool import ResultPool
from pacs.results.result import Reference, StudyFinding

logger = logging.getLogger(__name__)

IDLE_SECONDS = 1.0
"""Between two looks for a job that nobody has told of: one that was postponed, or another replica's."""
EMPTYING_SECONDS = 60.0
"""Between two looks for what has been kept for long enough."""
RESTART_SECONDS = 1.0
LONGEST_RESTART_SECONDS = 60.0
"""Between the end of the worker by an error of ours and its next beginning, which doubles each time."""
TOLD = 3
"""Radiographs that were left out and that a job's reason names; its report names all."""


TWO_FACED = "A radiograph names two patients; export the study again."


class RefusedStudyError(PacsError):
    """Nothing of the study can be judged; holds what was looked at to find that."""

    def __init__(self, reason: str, looked: Sequence[ExaminedInstance]) -> None:
        super().__init__(reason)
        self.looked = looked


@dataclass(frozen=True)
class _Answer:
    """What an attempt came to, or an earlier one."""

    results: list[Instance]
    left_out: str | None


@dataclass(frozen=True)
class StudyWorker:
    """Works on the studies of a replica's queue, one at a time."""

    predictor: PredictorService
    results: ResultPool
    hospital: Hospital

    async def keep_working(self) -> None:
        """Run `work`, and begin it again when an error of ours has ended it; meanwhile this replica is not ready."""
        pause = RESTART_SECONDS
        while True:
            started = time.monotonic()
            try:
                await self.work()
                ending = "an end that it should not have"
            except Exception as error:  # it may repeat what a study holds: only its type is told
                ending = type(error).__name__
            self.hospital.worker.fault = f"The worker of the jobs ended with {ending}."
            pause = RESTART_SECONDS if time.monotonic() - started > LONGEST_RESTART_SECONDS else pause
            logger.error("%s It begins again in %g s.", self.hospital.worker.fault, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_RESTART_SECONDS)

    async def work(self) -> None:
        """Take jobs as they fall due, for as long as the service runs."""
        lease = timedelta(seconds=self.predictor.settings.lease_seconds)
        policy = RetryPolicy(self.predictor.settings.job_attempts)
        owner = f"{socket.gethostname()}-{uuid4().hex[:8]}"
        emptied = -math.inf
        while True:
            self.hospital.arrived.clear()
            try:
                if time.monotonic() - emptied > EMPTYING_SECONDS:
                    await asyncio.to_thread(
                        self.hospital.jobs.purge_dead, timedelta(days=self.predictor.settings.dead_days)
                    )
                    await asyncio.to_thread(
                        self.hospital.jobs.purge_answered, timedelta(hours=self.predictor.settings.study_hours)
                    )
                    emptied = time.monotonic()
                job = await asyncio.to_thread(self.hospital.jobs.lease, owner, lease, policy)
                self.hospital.worker.fault = None
                if job is not None:
                    await self.attempt(job, policy)
                    continue
            except PacsError as error:
                # The job that it happened to, if any, comes again when its lease has ended.
                logger.error("The jobs cannot be read or written: %s", error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.hospital.arrived.wait(), IDLE_SECONDS)

    async def attempt(self, job: Job, policy: RetryPolicy) -> None:
        """One attempt at a job; what goes wrong is written into it, and said in the log without the study's contents.

        Raises:
            PacsError: it cannot be written.
        """
        seconds, lease = self.predictor.settings.job_seconds, timedelta(seconds=self.predictor.settings.lease_seconds)
        try:
            # An archive that sends a byte now and then would hold a job for ever.
            async with _kept_alive(self.hospital, job, lease), asyncio.timeout(seconds):
                done = await self._run(job)
            logger.info("Job %s is %s, judged by checkpoint %s.", done.id, done.state, done.checkpoint)
        except LeaseLostError:
            logger.warning("Job %s took too long and is another worker's now.", job.id)
        except RefusedStudyError as error:
            with suppress(LeaseLostError):  # the study has grown meanwhile
                await asyncio.to_thread(self.hospital.jobs.finish, job, JobState.REFUSED, str(error), error.looked)
                logger.info("Job %s is refused: %s", job.id, error)
        except (PacsError, RequestError) as error:
            await _postpone(self.hospital, job, str(error), policy)
        except TimeoutError:
            await _postpone(self.hospital, job, f"The attempt took more than {seconds:g} s.", policy)
        except Exception as error:
            # Ours, and it may repeat what the study holds: only its type is told.
            await _postpone(self.hospital, job, f"The analysis failed with {type(error).__name__}.", policy)

    async def _run(self, job: Job) -> Job:
        earlier = await asyncio.to_thread(self.hospital.jobs.repository.results, job.id)
        answer = _Answer(earlier, job.left_out) if earlier else await self._judge(job)
        state = JobState.KEPT
        if job.archive is not None:
            proofs = {
                each.instance_uid: await asyncio.to_thread(
                    self.hospital.jobs.repository.fingerprints, each.instance_uid
                )
                for each in answer.results
            }
            async with self.hospital.connected(job.archive) as archive:
                if not self.hospital.archives[job.archive].coerces_patient_ids:
                    await require_same_patient(self.hospital, archive, job)
                await deliver(self.results, archive, job.study_uid, answer.results, proofs)
            state = JobState.DELIVERED
        return await asyncio.to_thread(self.hospital.jobs.finish, job, state, answer.left_out)

    async def _judge(self, job: Job) -> _Answer:
        """Analyse a study and store what was found.

        Raises:
            RefusedStudyError: there is nothing to judge.
        """
        gathering = Gathering(self.predictor, self.hospital, job)
        try:
            finding = await analyse(self.predictor, self.results, job, gathering.instances())
        except (NothingToJudgeError, StudyMissingError) as error:
            reasons = sorted({reason for _, reason in gathering.left_out})
            if gathering.looked or not reasons:
                reasons.append(str(error))
            raise RefusedStudyError(" ".join(reasons), gathering.looked) from error
        await _require_one_patient(self.hospital, job, finding, gathering.looked)
        left_out = (*finding.left_out, *gathering.left_out)
        more_left_out = finding.more_left_out or len(left_out) > MAX_LEFT_OUT
        finding = replace(finding, left_out=left_out[:MAX_LEFT_OUT], more_left_out=more_left_out)
        basis = self.hospital.jobs.basis(job, _grounds(finding, gathering.looked))
        replaced = await asyncio.to_thread(self.hospital.jobs.repository.superseded_results, job, basis)
        finding = replace(
            finding,
            seed=self.hospital.jobs.seed(basis, replaced),
            supersedes=tuple(Reference(each.sop_class_uid, each.instance_uid, each.series_uid) for each in replaced),
        )
        made = await self.results.render(finding)
        files = list(zip(made.files, made.fingerprints, strict=True))
        told = _told(finding)
        judgement = Outcome(files, made.fhir, finding.checkpoint, basis, gathering.looked, told)
        results = await asyncio.to_thread(self.hospital.jobs.store_results, job, judgement)
        return _Answer(results, told)


async def _require_one_patient(
    hospital: Hospital, job: Job, finding: StudyFinding, looked: Sequence[ExaminedInstance]
) -> None:
    """Compare the patients that results are made for with the study's, whom other readers of the files have found.

    Raises:
        RefusedStudyError: a radiograph is another patient's.
    """
    for radiograph in finding.radiographs:
        try:
            await asyncio.to_thread(hospital.jobs.intake.assign_patient, job, radiograph.source.patient)
        except OtherPatientError as error:
            raise RefusedStudyError(TWO_FACED, looked) from error


def _grounds(finding: StudyFinding, looked: Sequence[ExaminedInstance]) -> list[str]:
    """What an answer follows from, and what it says as far as the same network may say something else."""
    said = f"{finding.probability:.4f} {finding.threshold:.4f} {finding.label} {finding.decision}"
    return [
        finding.checkpoint,
        finding.version,
        said,
        *sorted(f"{each.instance.instance_uid} {each.digest.hex()}" for each in looked),
        *sorted(f"{uid} {reason}" for uid, reason in finding.left_out),
    ]


def _told(finding: StudyFinding) -> str | None:
    """The reason of a job whose study has more than was judged."""
    if finding.is_complete:
        return None
    named = [f"{uid}: {reason}" for uid, reason in finding.left_out[:TOLD]]
    count = f"{len(finding.left_out)} of its radiographs{' and more' if finding.more_left_out else ''}"
    return f"{count} were left out. {' '.join(named)}"


@asynccontextmanager
async def _kept_alive(hospital: Hospital, job: Job, lease: timedelta) -> AsyncIterator[None]:
    """Renew the lease for as long as the block runs."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(lease.total_seconds() / 3)
            try:
                await asyncio.to_thread(hospital.jobs.renew, job, lease)
            except LeaseLostError:
                return  # the next write tells the work of it
            except PacsError as error:
                logger.warning("The lease of job %s was not renewed: %s", job.id, error)

    task = asyncio.create_task(renew())
    try:
        yield
    finally:
        task.cancel()


async def _postpone(hospital: Hospital, job: Job, reason: str, policy: RetryPolicy) -> None:
    with suppress(LeaseLostError):
        after = await asyncio.to_thread(hospital.jobs.postpone, job, reason, policy)
        logger.warning("Job %s, attempt %d: %s It is %s.", job.id, job.attempts, reason, after.state)
