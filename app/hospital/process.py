"""Processes one job: collects the radiographs of its study, analyzes them, and stores and delivers the results."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.hospital.analysis import MAX_LEFT_OUT, NothingToAnalyzeError, analyze_study
from app.hospital.collector import RadiographCollector
from app.hospital.delivery import deliver, require_same_patient
from app.hospital.gateway import Hospital
from app.inference.predictor_service import PredictorService
from pacs.errors import PacsError, StudyMissingError
from pacs.instance import Instance
from pacs.queue.errors import OtherPatientError
from pacs.queue.file_store import ExaminedInstance
from pacs.queue.jobs import Job, JobState, Outcome
from pacs.results.rendering.worker_pool import ResultPool
from pacs.results.result import Reference, StudyFinding

MAX_NAMED = 3
"""Maximum number of left-out radiographs that a job's reason names; the report names all."""
AMBIGUOUS_PATIENT = "A radiograph names two patients; export the study again."


class RefusedStudyError(PacsError):
    """Processing a job found nothing in its study to analyze; the error has the instances that were examined."""

    def __init__(self, reason: str, examined: Sequence[ExaminedInstance]) -> None:
        super().__init__(reason)
        self.examined = examined


@dataclass(frozen=True)
class _StoredResults:
    """The results of this or an earlier attempt, and a sentence about the radiographs that were left out."""

    files: list[Instance]
    left_out: str | None


@dataclass(frozen=True)
class JobProcessor:
    """Processes a job step by step, from its radiographs to its results."""

    predictor: PredictorService
    results: ResultPool
    hospital: Hospital

    async def process(self, job: Job) -> Job:
        """Process a job: analyze its study unless an earlier attempt did, deliver the results, and finish the job.

        Raises:
            LeaseLostError: another worker has taken over the job.
            RefusedStudyError: nothing in the study can be analyzed.
            PacsError: the study cannot be fetched, or its results cannot be rendered or delivered.
            RequestError: the network failed or is not ready.
        """
        earlier = await asyncio.to_thread(self.hospital.jobs.repository.results, job.id)
        stored = _StoredResults(earlier, job.left_out) if earlier else await self._analyze(job)
        state = JobState.KEPT
        if job.archive is not None:
            await self._deliver(job, job.archive, stored.files)
            state = JobState.DELIVERED
        return await asyncio.to_thread(self.hospital.jobs.finish, job, state, stored.left_out)

    async def _deliver(self, job: Job, archive_name: str, files: Sequence[Instance]) -> None:
        repository = self.hospital.jobs.repository
        fingerprints = {
            each.instance_uid: await asyncio.to_thread(repository.fingerprints, each.instance_uid) for each in files
        }
        async with self.hospital.connect(archive_name) as archive:
            if not self.hospital.archives[archive_name].coerces_patient_ids:
                await require_same_patient(self.hospital, archive, job)
            await deliver(self.results, archive, job.study_uid, files, fingerprints)

    async def _analyze(self, job: Job) -> _StoredResults:
        """Analyze a study, render its results and store them.

        Raises:
            RefusedStudyError: nothing in the study can be analyzed.
        """
        collector = RadiographCollector(self.predictor, self.hospital, job)
        try:
            finding = await analyze_study(self.predictor, self.results, job, collector.instances())
        except (NothingToAnalyzeError, StudyMissingError) as error:
            reasons = sorted({reason for _, reason in collector.left_out})
            if collector.examined or not reasons:
                reasons.append(str(error))
            raise RefusedStudyError(" ".join(reasons), collector.examined) from error
        await self._require_one_patient(job, finding, collector.examined)
        left_out = (*finding.left_out, *collector.left_out)
        more_left_out = finding.more_left_out or len(left_out) > MAX_LEFT_OUT
        finding = replace(finding, left_out=left_out[:MAX_LEFT_OUT], more_left_out=more_left_out)
        return await self._store(job, finding, collector.examined)

    async def _require_one_patient(self, job: Job, finding: StudyFinding, examined: Sequence[ExaminedInstance]) -> None:
        """Compare the patients in the results with the study's patient, because two parsers have read the files.

        Raises:
            RefusedStudyError: a radiograph belongs to another patient.
        """
        for radiograph in finding.radiographs:
            try:
                await asyncio.to_thread(self.hospital.jobs.intake.assign_patient, job, radiograph.source.patient)
            except OtherPatientError as error:
                raise RefusedStudyError(AMBIGUOUS_PATIENT, examined) from error

    async def _store(self, job: Job, finding: StudyFinding, examined: Sequence[ExaminedInstance]) -> _StoredResults:
        """Render the results of a finding and store them as successors of the results that they replace."""
        jobs = self.hospital.jobs
        basis = jobs.basis(job, _basis(finding, examined))
        replaced = await asyncio.to_thread(jobs.repository.superseded_results, job, basis)
        finding = replace(
            finding,
            seed=jobs.seed(basis, replaced),
            supersedes=tuple(Reference(each.sop_class_uid, each.instance_uid, each.series_uid) for each in replaced),
        )
        rendered = await self.results.render(finding)
        files = list(zip(rendered.files, rendered.fingerprints, strict=True))
        left_out = _left_out_sentence(finding)
        outcome = Outcome(files, rendered.fhir, finding.checkpoint, basis, examined, left_out)
        return _StoredResults(await asyncio.to_thread(jobs.store_results, job, outcome), left_out)


def _basis(finding: StudyFinding, examined: Sequence[ExaminedInstance]) -> list[str]:
    """Return the inputs of a finding and its values, rounded so that the same network always reproduces them."""
    values = f"{finding.probability:.4f} {finding.threshold:.4f} {finding.label} {finding.decision}"
    return [
        finding.checkpoint,
        finding.version,
        values,
        *sorted(f"{each.instance.instance_uid} {each.digest.hex()}" for each in examined),
        *sorted(f"{uid} {reason}" for uid, reason in finding.left_out),
    ]


def _left_out_sentence(finding: StudyFinding) -> str | None:
    """Return a sentence about the radiographs that were left out; None if there are none."""
    if finding.is_complete:
        return None
    named = [f"{uid}: {reason}" for uid, reason in finding.left_out[:MAX_NAMED]]
    count = f"{len(finding.left_out)} of its radiographs{' and more' if finding.more_left_out else ''}"
    return f"{count} were left out. {' '.join(named)}"
