"""Leases jobs from the queue and processes them. A job whose attempt fails or is interrupted is retried."""

import asyncio
import logging
import math
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from app.errors import RequestError
from app.hospital.gateway import Hospital
from app.hospital.process import JobProcessor, RefusedStudyError
from app.inference.predictor_service import PredictorService
from pacs.errors import PacsError
from pacs.queue.errors import LeaseLostError
from pacs.queue.jobs import Job, JobState, RetryPolicy
from pacs.results.rendering.worker_pool import ResultPool

logger = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""Interval between two queries for jobs that were postponed or come from another process, in seconds."""
PURGE_SECONDS = 60.0
"""Interval between two deletions of data that is older than the settings allow, in seconds."""
RESTART_SECONDS = 1.0
MAX_RESTART_SECONDS = 60.0
"""Bounds of the pause before the worker restarts after an unexpected error, in seconds. The pause doubles each time."""


@dataclass(frozen=True)
class StudyWorker:
    """The worker of a replica, which leases jobs from the queue and processes them one at a time."""

    predictor: PredictorService
    results: ResultPool
    hospital: Hospital

    async def keep_working(self) -> None:
        """Keep the worker running: restart it after an unexpected error; until then, this replica is not ready."""
        pause = RESTART_SECONDS
        while True:
            started = time.monotonic()
            try:
                await self.work()
                reason = "an unexpected return"
            except Exception as error:  # the text may contain patient data, so only the type is logged
                reason = type(error).__name__
            self.hospital.worker.fault = f"The worker of the jobs ended with {reason}."
            pause = RESTART_SECONDS if time.monotonic() - started > MAX_RESTART_SECONDS else pause
            logger.error("%s It restarts in %g s.", self.hospital.worker.fault, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_RESTART_SECONDS)

    async def work(self) -> None:
        """Lease jobs when they are due and process them, for as long as the service runs."""
        lease = timedelta(seconds=self.predictor.settings.lease_seconds)
        policy = RetryPolicy(self.predictor.settings.job_attempts)
        owner = f"{socket.gethostname()}-{uuid4().hex[:8]}"
        last_purge = -math.inf
        while True:
            self.hospital.arrived.clear()
            if time.monotonic() - last_purge > PURGE_SECONDS:
                last_purge = time.monotonic()
                await self._purge()
            try:
                job = await asyncio.to_thread(self.hospital.jobs.lease, owner, lease, policy)
                self.hospital.worker.fault = None
                if job is not None:
                    await self.attempt(job, policy)
                    continue
            except PacsError as error:
                # A leased job is retried after its lease has expired.
                logger.error("The jobs cannot be read or written: %s", error)
            with suppress(TimeoutError):
                await asyncio.wait_for(self.hospital.arrived.wait(), POLL_SECONDS)

    async def attempt(self, job: Job, policy: RetryPolicy) -> None:
        """Process a leased job once. A failure is stored in the job and logged without patient data.

        Raises:
            PacsError: the outcome cannot be stored.
        """
        seconds, lease = self.predictor.settings.job_seconds, timedelta(seconds=self.predictor.settings.lease_seconds)
        processor = JobProcessor(self.predictor, self.results, self.hospital)
        try:
            # Without the timeout, an archive that sends a byte now and then would block a job forever.
            async with _renew_lease(self.hospital, job, lease), asyncio.timeout(seconds):
                done = await processor.process(job)
            logger.info("Job %s is %s, analyzed by checkpoint %s.", done.id, done.state, done.checkpoint)
        except LeaseLostError:
            logger.warning("Job %s took too long, and another worker has taken it over.", job.id)
        except RefusedStudyError as error:
            with suppress(LeaseLostError):  # more of the study may have arrived in the meantime
                await asyncio.to_thread(self.hospital.jobs.finish, job, JobState.REFUSED, str(error), error.examined)
                logger.info("Job %s is refused: %s", job.id, error)
        except (PacsError, RequestError) as error:
            await _postpone(self.hospital, job, str(error), policy)
        except TimeoutError:
            await _postpone(self.hospital, job, f"The attempt took more than {seconds:g} s.", policy)
        except Exception as error:  # the text may contain patient data, so only the type is kept
            await _postpone(self.hospital, job, f"The analysis failed with {type(error).__name__}.", policy)

    async def _purge(self) -> None:
        """Delete dead jobs and analyzed studies that are older than the settings allow; a failure is only logged."""
        settings, jobs = self.predictor.settings, self.hospital.jobs
        try:
            await asyncio.to_thread(jobs.purge_dead, timedelta(days=settings.dead_days))
            await asyncio.to_thread(jobs.purge_answered, timedelta(hours=settings.study_hours))
        except PacsError as error:
            logger.error("Old jobs and studies cannot be deleted: %s", error)


@asynccontextmanager
async def _renew_lease(hospital: Hospital, job: Job, lease: timedelta) -> AsyncIterator[None]:
    """Renew the lease of a job regularly for the duration of the block."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(lease.total_seconds() / 3)
            try:
                await asyncio.to_thread(hospital.jobs.renew, job, lease)
            except LeaseLostError:
                return  # the next write of the job fails and says so
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
