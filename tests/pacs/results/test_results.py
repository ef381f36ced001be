"""Results are valid DICOM, belong to the right patient and say what the finding says."""

import io
import json
import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from highdicom.sr import Comprehensive3DSR
from pydicom import Dataset, dcmread
from pydicom.uid import UID

from pacs.results.capture.capture_layout import AMBER, MIN_OVERLAY_HEIGHT, draw_capture
from pacs.results.codes import FAMILIARITY, PROBABILITY, THRESHOLD
from pacs.results.patient_attributes import REQUIRED
from pacs.results.picture import draw_picture
from pacs.results.rendering.render import render_results
from pacs.results.report.fhir import diagnostic_report
from pacs.results.result import NOTICE, RadiographFinding, Reference, StudyFinding
from pacs.results.source import read_source
from pacs.results.uids import device_uid, instance_uid, series_uid, tracking_uid
from tests.dicom_files import CANARY, dicom
from tests.phantoms import draw_phantom
from tests.tools import needs
from xray.images.dicom.decode import decode_dicom
from xray.images.radiograph import MAX_PIXELS, PixelArray
from xray.network.cam import Cam, Region

STUDY = "1.2.826.0.1.3680043.10.1338.1"
ABSENT: dict[str, Any] = dict.fromkeys(("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber"))
HOT = Region(left=30, top=80, width=45, height=31, evidence=1.0)
WARM = Region(left=0, top=0, width=20, height=10, evidence=0.625)
UNFAMILIAR = "A radiograph is unlike those that the network was trained on."
LEFT_OUT = (("1.2.826.0.1.3680043.10.1338.99", "The image is constant; send a radiograph that shows anatomy."),)


def radiograph(
    number: int = 1, shape: tuple[int, int] = (160, 128), regions: tuple[Region, ...] = (HOT, WARM), **tags: Any
) -> RadiographFinding:
    """Return a finding as the service makes it from a file."""
    stored = draw_phantom(number, fracture=True, height=shape[0], width=shape[1])
    if tags.get("PhotometricInterpretation") == "MONOCHROME1":
        stored = 255 - stored
    data = dicom(stored, SOPInstanceUID=f"1.2.826.0.1.3680043.10.1338.3.{number}", InstanceNumber=number, **tags)
    decoded = decode_dicom(data)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    distances = ((y / shape[0] - 0.6) ** 2 + (x / shape[1] - 0.41) ** 2) / 0.02
    cam = Cam(np.exp(-distances).astype(np.float32))
    return RadiographFinding(read_source(data, MAX_PIXELS), draw_picture(cam, decoded), regions, 0.75, 1 / 3)


def finding(*radiographs: RadiographFinding, **changes: Any) -> StudyFinding:
    usual = StudyFinding(
        STUDY,
        0.8125,
        "abnormal",
        "abnormal",
        0.218,
        "bab1e6de5b03",
        "0.1.0",
        radiographs or (radiograph(),),
        seed=b"secret",
    )
    return replace(usual, **changes)


def results(of: StudyFinding) -> tuple[Dataset, Dataset]:
    """Return the capture and the report, read back."""
    capture, report = (dcmread(io.BytesIO(each.data)) for each in render_results(of).files)
    return capture, report


def stored(of: StudyFinding, folder: Path) -> list[Path]:
    """Write the capture and the report to files."""
    files = [folder / "capture.dcm", folder / "report.dcm"]
    for file, result in zip(files, render_results(of).files, strict=True):
        file.write_bytes(result.data)
    return files


THREE = (radiograph(1), radiograph(2, (90, 150), (), ViewPosition="LL"), radiograph(3, (256, 100), (WARM,)))
EARLIER = (
    Reference("1.2.840.10008.5.1.4.1.1.7", "2.25.11", "2.25.1"),
    Reference("1.2.840.10008.5.1.4.1.1.88.34", "2.25.22", "2.25.2"),
)
CASES = {
    "later version": finding(supersedes=EARLIER),
    "one radiograph": finding(),
    "three radiographs": finding(*THREE, decision="uncertain", left_out=LEFT_OUT),
    "no regions": finding(radiograph(regions=()), label="normal", decision="normal", probability=0.01),
    "unfamiliar": finding(
        replace(radiograph(), familiarity=0.625), decision="uncertain", decision_reason=UNFAMILIAR, familiarity=0.625
    ),
    "no patient": finding(radiograph(**ABSENT)),
    "Latin name": finding(radiograph(PatientName="Müller^Jörg", SpecificCharacterSet="ISO_IR 100")),
    "UTF-8 name": finding(radiograph(PatientName="Łukasz^山田", SpecificCharacterSet="ISO_IR 192")),
    "MONOCHROME1": finding(radiograph(PhotometricInterpretation="MONOCHROME1")),
    "both sides": finding(radiograph(1), radiograph(2, ImageLaterality="R", BodyPartExamined="WRIST")),
    "lossy": finding(
        radiograph(
            LossyImageCompression="01", LossyImageCompressionRatio="10.5", LossyImageCompressionMethod="ISO_10918_1"
        )
    ),
    "whole study data": finding(
        radiograph(StudyDate="20260102", StudyTime="030405", StudyID="7", PatientSex="F", PatientAge="040Y")
    ),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


@needs("dciodvfy")
@each_case
def test_results_are_valid_dicom(case: StudyFinding, tmp_path: Path) -> None:
    for file, name in zip(stored(case, tmp_path), ("SCImage", "Comprehensive3DSR"), strict=True):
        said = subprocess.run(["dciodvfy", file], capture_output=True, text=True, check=False)
        assert [line for line in said.stderr.splitlines() if line.startswith("Error")] == []
        assert name in said.stderr


@needs("dsrdump")
def test_report_shows_probability_notice_and_what_was_left_out(tmp_path: Path) -> None:
    _, report = stored(CASES["three radiographs"], tmp_path)
    command: list[str | Path] = ["dsrdump", "+Pl", report]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f'"{PROBABILITY.meaning}")="0.8125"' in shown
    assert f'"{THRESHOLD.meaning}")="0.218"' in shown
    assert f'="{NOTICE}"' in shown
    assert all(f"Not judged: {uid}. {reason}" in shown for uid, reason in LEFT_OUT)
    assert all(each in shown for each in ("UNVERIFIED", "PRELIMINARY", "PARTIAL", "checkpoint=bab1e6de5b03"))


@needs("dsrdump")
def test_report_of_an_unfamiliar_limb_says_so_in_words_and_numbers(tmp_path: Path) -> None:
    _, report = stored(CASES["unfamiliar"], tmp_path)
    command: list[str | Path] = ["dsrdump", "+Pl", report]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.count(f'"{FAMILIARITY.meaning}")="0.625"') == 2  # of the study and of its radiograph
    assert f'="{UNFAMILIAR}"' in shown
    assert UNFAMILIAR in diagnostic_report(CASES["unfamiliar"])["conclusion"]


def test_results_of_a_later_version_name_those_that_they_replace() -> None:
    case = CASES["later version"]
    capture, report = results(case)
    (study,) = report.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (document,) = series.ReferencedSOPSequence
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == (STUDY, "2.25.2")
    assert document.ReferencedSOPInstanceUID == "2.25.22"
    assert "Replaces 2.25.11" in capture.ImageComments
    (extension,) = diagnostic_report(case)["extension"]
    assert extension["valueReference"]["identifier"]["value"] == "urn:oid:2.25.22"


def test_results_that_replace_nothing_say_nothing_of_it() -> None:
    capture, report = results(CASES["one radiograph"])
    assert "PredecessorDocumentsSequence" not in report
    assert capture.ImageComments == NOTICE
    assert "extension" not in diagnostic_report(CASES["one radiograph"])


def test_finding_without_a_seed_has_no_uids() -> None:
    with pytest.raises(ValueError, match="seed"):
        render_results(replace(finding(), seed=b""))


def test_repeated_result_has_the_same_uids_and_pixels() -> None:
    (capture, report), (again, report_again) = results(CASES["three radiographs"]), results(CASES["three radiographs"])
    assert capture.PixelData == again.PixelData
    assert report.ContentSequence == report_again.ContentSequence
    for first, second in ((capture, again), (report, report_again)):
        assert first.SOPInstanceUID == second.SOPInstanceUID
        assert first.SeriesInstanceUID == second.SeriesInstanceUID


def test_uids_are_valid_and_differ_by_kind_and_seed() -> None:
    uids = [
        make(kind, seed)
        for make in (series_uid, instance_uid)
        for kind in ("capture", "report")
        for seed in (b"one", b"another")
    ]
    uids += [tracking_uid(b"one", "study"), tracking_uid(b"one", "other"), device_uid("0.1.0", "a")]
    assert len(set(uids)) == len(uids)
    assert all(UID(uid).is_valid and len(uid) <= 64 for uid in uids)


@each_case
def test_results_belong_to_the_study_of_the_radiograph_in_series_of_their_own(case: StudyFinding) -> None:
    for result in results(case):
        assert all(keyword in result for keyword in REQUIRED)
        assert result.StudyInstanceUID == STUDY
        assert result.SeriesInstanceUID not in {each.source.series_uid for each in case.radiographs}


def test_odd_patient_attributes_go_back_unchanged_and_unsaid(tmp_path: Path) -> None:
    """No value is refused, repaired or repeated in a warning."""
    odd: dict[str, Any] = {"PatientSex": "CANARY?", "StudyDate": "CANARY", "PatientName": "A=B=C=D=" + CANARY}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        case = finding(radiograph(**odd))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files = stored(case, tmp_path)
    assert all(value.encode() in file.read_bytes() for value in odd.values() for file in files)


def test_capture_refers_to_its_radiographs() -> None:
    capture, _ = results(CASES["three radiographs"])
    sources = [item.ReferencedSOPInstanceUID for item in capture.SourceImageSequence]
    assert sources == [each.source.instance_uid for each in THREE]
    assert (capture.BurnedInAnnotation, list(capture.ImageType)) == ("YES", ["DERIVED", "SECONDARY"])
    assert "PixelSpacing" not in capture


def test_side_is_said_only_where_all_radiographs_have_it() -> None:
    assert results(CASES["three radiographs"])[0].Laterality == "L"
    assert not results(CASES["both sides"])[0].Laterality


SHAPES = [(160, 128), (1600, 60), (60, 1600), (1500, 1200), (700, 700)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("count", [1, 3, 9])
def test_notice_is_whole_and_large_at_every_size(shape: tuple[int, int], count: int) -> None:
    picture = draw_capture(finding(*[radiograph(1, shape, ())] * count))
    amber_HW = (picture == AMBER).all(axis=2)
    rows, columns = np.nonzero(~amber_HW[: int(np.argmin(amber_HW[:, 0]))])
    height, width = picture.shape[:2]
    assert 0 < columns.min() < columns.max() < width - 1
    assert rows.min() > 0
    assert np.ptp(rows) * 60 > max(height, width), "the letters shrink with the picture in a viewer's window"
    assert np.ptp(columns) > 10 * np.ptp(rows), "it is one line"


def test_words_change_with_the_finding_and_overlay_does_not() -> None:
    pictures = [draw_capture(finding(probability=p, decision=d)) for p, d in ((0.8125, "abnormal"), (0.3, "uncertain"))]
    changed = np.nonzero((pictures[0] != pictures[1]).any(axis=(1, 2)))[0]
    assert len(changed) > 0
    assert changed.max() < pictures[0].shape[0] - MIN_OVERLAY_HEIGHT


def test_overlays_are_shown_whole_with_nothing_over_them() -> None:
    sources = [radiograph(number, (600, 480), ()) for number in range(2)]
    picture = draw_capture(finding(*sources))
    assert all(is_within(source.picture.pixels_HW3, picture) for source in sources)


def is_within(part_HW3: PixelArray, whole_HW3: PixelArray) -> bool:
    height, width = part_HW3.shape[:2]
    starts = np.argwhere((whole_HW3 == part_HW3[0, 0]).all(axis=2))
    return any(np.array_equal(whole_HW3[y : y + height, x : x + width], part_HW3) for y, x in starts)


def test_frame_runs_round_its_region_and_leaves_the_inside_free() -> None:
    box = Region(left=100, top=300, width=200, height=150, evidence=1.0)
    with_frame, without = (draw_capture(finding(radiograph(1, (600, 480), regions))) for regions in ((box,), ()))
    rows, columns = np.nonzero((with_frame != without).any(axis=2))
    top, left = rows.min(), columns.min()
    assert abs(np.ptp(rows) - box.height) < 12
    assert abs(np.ptp(columns) - box.width) < 12
    inside = np.s_[top + 12 : top + box.height - 12, left + 12 : left + box.width - 12]
    assert np.array_equal(with_frame[inside], without[inside])


@each_case
def test_report_has_the_regions_and_numbers_of_the_finding(case: StudyFinding) -> None:
    """The files can be read by other programs."""
    capture, report = results(case)
    content: Any = Comprehensive3DSR.from_dataset(report).content  # highdicom does not say that it is a report's
    found = []
    for group in content.get_planar_roi_measurement_groups():
        corners = group.roi.value
        assert np.array_equal(corners[0], corners[-1])
        source = next(item for item in group.roi.ContentSequence if item.ValueType == "IMAGE")
        (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
        evidence = group.get_measurements()[0].value
        found.append((source.referenced_sop_instance_uid, Region(left, top, right - left, bottom - top, evidence)))
    assert found == [(each.source.instance_uid, region) for each in case.radiographs for region in each.regions]
    of_study, *of_radiographs = content.get_image_measurement_groups()
    assert [each.value for each in of_study.get_measurements()] == known(
        case.probability, case.threshold, case.familiarity
    )
    numbers = [[each.value for each in group.get_measurements()] for group in of_radiographs]
    expected = [known(each.probability, each.weight, each.familiarity) for each in case.radiographs]
    assert np.allclose(numbers, expected, atol=1e-6)
    evidence_uids = {sop for _, _, sop, _ in Comprehensive3DSR.from_dataset(report).get_evidence()}
    assert evidence_uids == {capture.SOPInstanceUID, *(each.source.instance_uid for each in case.radiographs)}


def known(*values: float | None) -> list[float]:
    """The values that are known; the others are not in a report."""
    return [value for value in values if value is not None]


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Yield all objects within a JSON value."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from nodes(each)


@each_case
def test_fhir_report_keeps_the_rules_of_r4(case: StudyFinding) -> None:
    report = json.loads(json.dumps(diagnostic_report(case)))
    assert (report["resourceType"], report["status"]) == ("DiagnosticReport", "preliminary")
    assert report["imagingStudy"][0]["identifier"] == {"system": "urn:dicom:uid", "value": f"urn:oid:{STUDY}"}
    assert NOTICE in report["conclusion"]
    ids = [resource["id"] for resource in report["contained"]]
    referred = {node["reference"] for node in nodes(report) if "reference" in node}
    assert referred == {f"#{each}" for each in ids}, "dom-3: what is contained is referred to"
    assert len(set(ids)) == len(ids)
    assert not any("contained" in each or "meta" in each for each in report["contained"]), "dom-2, dom-4"
    assert all(value not in ("", [], {}, None) for node in nodes(report) for value in node.values())
    for observation in report["contained"][1:]:
        assert {"status", "code"} <= observation.keys()
        assert len([key for key in observation if key.startswith("value")]) == 1


@each_case
def test_fhir_report_says_the_finding_and_nothing_of_the_patient(case: StudyFinding) -> None:
    report = diagnostic_report(case)
    probability, label = report["contained"][1:3]
    assert probability["valueQuantity"]["value"] == case.probability
    assert label["valueCodeableConcept"]["text"].lower() == case.label
    assert {"value": case.checkpoint, "type": {"text": "checkpoint"}} in report["contained"][0]["version"]
    assert "subject" not in report
    written, capture = json.dumps(report, ensure_ascii=False), results(case)[0]
    assert not any(str(capture[keyword].value) in written for keyword in ABSENT if capture.get(keyword))


def test_fhir_report_passes_the_models_of_fhir_resources() -> None:
    model = pytest.importorskip("fhir.resources.R4B.diagnosticreport").DiagnosticReport
    report = diagnostic_report(CASES["three radiographs"])
    read = model.model_validate(report)
    assert json.loads(read.model_dump_json()) == report
