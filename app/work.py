"""Jobs in, results in the archive out; whatever happens in between, the job is either done or comes again."""

import asyncio
import logging
import math
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import timedelta
from uuid import uuid4

from app.analysis import NothingToJudgeError, analyse
from app.errors import RequestError
from app.fetching import LeftOut, fetched
from app.hospital import Hospital
from app.service import Service
from pacs.archive import Archive
from pacs.errors import ArchiveUnavailableError, PacsError, StudyMissingError
from pacs.job_errors import LeaseLostError
from pacs.jobs import Instance, Job, JobState, RetryPolicy

logger = logging.getLogger(__name__)

IDLE_SECONDS = 1.0
"""Between two looks for a job that nobody has told of: one that was postponed, or another replica's."""
EMPTYING_SECONDS = 3600.0
"""Between two looks for dead jobs that have been kept for long enough."""


async def work(service: Service, hospital: Hospital) -> None:
    """Take jobs as they fall due, for as long as the service runs."""
    lease = timedelta(seconds=service.settings.lease_seconds)
    policy = RetryPolicy(service.settings.job_attempts)
    owner = f"{socket.gethostname()}-{uuid4().hex[:8]}"
    age, emptied = timedelta(days=service.settings.dead_days), -math.inf
    while True:
        hospital.arrived.clear()
        try:
            if time.monotonic() - emptied > EMPTYING_SECONDS:
                await asyncio.to_thread(hospital.jobs.empty_dead, age)
                emptied = time.monotonic()
            job = await asyncio.to_thread(hospital.jobs.lease, owner, lease, policy)
            if job is not None:
                await attempt(service, hospital, job, policy)
                continue
        except PacsError as error:
            # The job that it happened to, if any, comes again when its lease has ended.
            logger.error("The jobs cannot be read or written: %s", error)
        with suppress(TimeoutError):
            await asyncio.wait_for(hospital.arrived.wait(), IDLE_SECONDS)


async def attempt(service: Service, hospital: Hospital, job: Job, policy: RetryPolicy) -> None:
    """One attempt at a job; what goes wrong is written into it, and said in the log without the study's contents.

    Raises:
        PacsError: it cannot be written.
    """
    seconds, lease = service.settings.job_seconds, timedelta(seconds=service.settings.lease_seconds)
    try:
        # An archive that sends a byte now and then would hold a job for ever.
        async with _kept_alive(hospital, job, lease), asyncio.timeout(seconds):
            state = await _run(service, hospital, job)
        logger.info("Job %s is %s.", job.id, state)
    except LeaseLostError:
        logger.warning("Job %s took too long and is another worker's now.", job.id)
    except (NothingToJudgeError, StudyMissingError) as error:
        await asyncio.to_thread(hospital.jobs.finish, job, JobState.REFUSED, str(error))
        logger.info("Job %s is refused: %s", job.id, error)
    except (PacsError, RequestError) as error:
        await _postpone(hospital, job, str(error), policy)
    except TimeoutError:
        await _postpone(hospital, job, f"The attempt took more than {seconds:g} s.", policy)
    except Exception as error:
        # Ours, and it may repeat what the study holds: only its type is told.
        await _postpone(hospital, job, f"The analysis failed with {type(error).__name__}.", policy)


async def _run(service: Service, hospital: Hospital, job: Job) -> JobState:
    results = await asyncio.to_thread(hospital.jobs.results, job.id)
    if not results:
        finding = await analyse(service, job, _instances(service, hospital, job))
        made = await service.results.results(finding)
        results = await asyncio.to_thread(hospital.jobs.keep_results, job, made.files, made.fhir)
    if job.archive is None:
        await asyncio.to_thread(hospital.jobs.finish, job, JobState.KEPT)
        return JobState.KEPT
    async with hospital.connected(job.archive) as archive:
        await archive.run(deliver, archive.archive, job.study_uid, results)
    await asyncio.to_thread(hospital.jobs.finish, job, JobState.DELIVERED)
    return JobState.DELIVERED


def deliver(archive: Archive, study_uid: str, results: list[Instance]) -> None:
    """Send what the archive does not have, and believe that it has it only once it says so.

    Raises:
        PacsError: it does not take them, or does not find them yet.
    """
    uids = [result.instance_uid for result in results]
    if archive.has(study_uid, uids):
        return
    archive.send([result.data for result in results])
    if not archive.has(study_uid, uids):
        raise ArchiveUnavailableError(f"Archive {archive.name} took the results and does not find them yet.")


async def _instances(service: Service, hospital: Hospital, job: Job) -> AsyncGenerator[Instance | LeftOut]:
    """The radiographs of the study: those that were sent, or those that the archive has, one in memory at a time."""
    if job.source == "pull" and job.archive is not None:
        async with aclosing(fetched(service, hospital, job, job.archive)) as pulled:
            async for each in pulled:
                yield each
        return
    sent = hospital.jobs.instances(job.id)
    while (instance := await asyncio.to_thread(next, sent, None)) is not None:
        yield instance


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
