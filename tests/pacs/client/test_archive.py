"""The client against a real Orthanc: stored instances are found and retrieved, and failures have the right type."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEGLSLossless,
    SecondaryCaptureImageStorage,
)

from pacs.client import archive as archive_module
from pacs.client.archive import Archive
from pacs.client.configuration import ArchiveConfig
from pacs.errors import (
    ArchiveRefusedError,
    ArchiveUnavailableError,
    ConfigurationError,
    StudyMissingError,
    TooLargeError,
)
from tests.dicom_files import CANARY, saved
from tests.orthanc import RunningOrthanc, orthanc, routing_rule
from tests.pacs.archives import UIDS, instance, raises
from tests.tools import needs
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, needs("Orthanc")]


@pytest.fixture
def config(running: RunningOrthanc, tmp_path: Path) -> ArchiveConfig:
    (tmp_path / "password").write_text(f"{running.password}\n")
    return ArchiveConfig(running.url, running.user, tmp_path / "password", timeout_seconds=10)


@pytest.fixture
def archive(config: ArchiveConfig) -> Iterator[Archive]:
    with Archive("main", config) as opened:
        yield opened


SYNTAXES = [ExplicitVRLittleEndian, JPEGLSLossless, HTJ2KLossless]


@pytest.mark.parametrize("number", range(len(SYNTAXES)))
def test_a_stored_radiograph_is_found_and_comes_back_byte_for_byte(archive: Archive, number: int) -> None:
    syntax = SYNTAXES[number]
    stored = instance(11 + number, 1, syntax)
    study = stored.StudyInstanceUID
    archive.store([stored])
    (file,) = archive.retrieve(study)
    assert file == saved(stored)
    assert dcmread(io.BytesIO(file)).file_meta.TransferSyntaxUID == syntax
    (found,) = archive.search_studies({"PatientName": f"{CANARY[:6]}*", "StudyInstanceUID": study})
    assert (found.study_uid, found.modalities) == (study, ("DX",))
    (only,) = archive.instances(study)
    assert only.sop_class_uid == DigitalXRayImageStorageForPresentation
    assert (only.series_uid, only.instance_uid, only.modality) == (f"{study}.1", f"{study}.1.1", "DX")


def test_storing_the_same_again_leaves_one_instance(archive: Archive, running: RunningOrthanc) -> None:
    stored = instance(2, 1)
    archive.store([stored, stored])
    archive.store([stored])
    archive.store([])
    assert running.instances(stored.StudyInstanceUID) == [stored.SOPInstanceUID]


def test_has_is_true_only_when_every_instance_is_in_that_study(archive: Archive) -> None:
    first, second, third = instance(3, 1), instance(3, 2), instance(3, 3)
    study = first.StudyInstanceUID
    archive.store([first, second])
    assert archive.has_instances(study, [first.SOPInstanceUID, second.SOPInstanceUID])
    assert not archive.has_instances(study, [first.SOPInstanceUID, third.SOPInstanceUID])
    assert not archive.has_instances(f"{UIDS}.999", [first.SOPInstanceUID])


def test_retrieve_leaves_other_modalities_where_they_are(archive: Archive) -> None:
    radiograph = instance(4, 1, Modality="CR")
    capture = instance(4, 2, Modality="OT", SOPClassUID=SecondaryCaptureImageStorage)
    study = radiograph.StudyInstanceUID
    archive.store([capture, radiograph])
    files = [dcmread(io.BytesIO(file)).SOPInstanceUID for file in archive.retrieve(study)]
    assert files == [radiograph.SOPInstanceUID]
    assert {each.modality for each in archive.series(study)} == {"CR", "OT"}
    assert len(archive.instances(study)) == 2
    assert [each.instance_uid for each in archive.radiographs(study)] == files


def test_search_finds_all_studies_however_few_come_in_a_page(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = [instance(number, 1, BodyPartExamined="ANKLE", StudyID="PAGES") for number in (51, 52, 53)]
    archive.store(stored)
    monkeypatch.setattr(archive_module, "STUDIES_PER_PAGE", 2)
    found = archive.search_studies({"StudyID": "PAGES"})
    assert sorted(study.study_uid for study in found) == sorted(each.StudyInstanceUID for each in stored)


def test_a_patient_of_any_script_is_stored_and_comes_back(archive: Archive) -> None:
    stored = instance(6, 1, SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Zoë=山田^太郎")
    archive.store([stored])
    (file,) = archive.retrieve(stored.StudyInstanceUID)
    assert dcmread(io.BytesIO(file)).PatientName == "Müller^Zoë=山田^太郎"


def test_a_missing_study_is_missing(archive: Archive) -> None:
    for ask in (archive.series, archive.instances, lambda study: list(archive.retrieve(study))):
        with raises(StudyMissingError, "main", f"{UIDS}.999"):
            ask(f"{UIDS}.999")


def test_what_is_no_uid_is_refused_before_anything_is_asked(archive: Archive) -> None:
    for ask in (archive.series, lambda study: archive.has_instances(study, ["1.2"])):
        with raises(ArchiveRefusedError):
            ask(f"../{CANARY}")


def test_an_instance_over_the_limit_is_refused(archive: Archive) -> None:
    stored = instance(7, 1, PixelData=bytes(64 * 48 * 2))
    archive.store([stored])
    with raises(TooLargeError, stored.SOPInstanceUID, "1000 bytes"):
        list(archive.retrieve(stored.StudyInstanceUID, max_bytes=1000))


def test_a_wrong_password_is_refused_until_its_file_is_mended(config: ArchiveConfig, running: RunningOrthanc) -> None:
    assert config.password_file is not None
    with Archive("main", config) as archive:
        config.password_file.write_text("wrong")
        for ask in (lambda: archive.search_studies({"PatientName": CANARY}), lambda: archive.store([instance(8, 1)])):
            with raises(ArchiveRefusedError, "main", "401"):
                ask()
        config.password_file.unlink()
        with raises(ConfigurationError, "main", "password"):
            archive.search_studies({})
        config.password_file.write_text(running.password)
        archive.search_studies({})


def test_a_killed_archive_is_unavailable_and_fine_again_later(archive: Archive, running: RunningOrthanc) -> None:
    stored = instance(9, 1)
    study = stored.StudyInstanceUID
    archive.store([stored])
    running.kill()
    asks = (
        lambda: archive.search_studies({"PatientName": CANARY}),
        lambda: list(archive.retrieve(study)),
        lambda: archive.has_instances(study, [stored.SOPInstanceUID]),
        lambda: archive.store([stored]),
    )
    for ask in asks:
        with raises(ArchiveUnavailableError, "main"):
            ask()
    running.start()
    assert archive.has_instances(study, [stored.SOPInstanceUID])
    assert len(list(archive.retrieve(study))) == 1


def test_the_routing_rule_sends_radiographs_once_and_not_what_comes_back(
    config: ArchiveConfig, running: RunningOrthanc, tmp_path: Path
) -> None:
    target = running.url.replace("http://", f"http://{running.user}:{running.password}@")
    radiograph, unsure = instance(10, 1), instance(10, 3, Modality="DR")
    result = instance(10, 2, Modality="OT", SOPClassUID=SecondaryCaptureImageStorage)
    sent = [radiograph.SOPInstanceUID, unsure.SOPInstanceUID]
    study = radiograph.StudyInstanceUID
    with (
        orthanc(tmp_path / "router", lua=routing_rule(), forward_to=target) as router,
        Archive("router", replace(config, url=router.url)) as archive,
    ):
        archive.store([radiograph, unsure])
        wait_until(lambda: sorted(running.instances(study)) == sent)
        archive.store([result])
        wait_until(
            lambda: [each["ChangeType"] for each in router.rest("/changes")["Changes"]].count("StableStudy") == 2
        )
        assert len(router.rest("/jobs")) == 1
        assert sorted(running.instances(study)) == sent
