"""`validate-site` reports what the service would answer at a site, and its exit status is the verdict."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.phantoms import write_dataset
from training.site.figures import TITLES
from training.site.limits import SiteLimits
from training.site.report import SiteReport
from training.site.validate_site import ValidateSiteOptions, validate_site
from xray.engines.registry import load_engine
from xray.errors import DatasetError
from xray.images.decoding.decode import read_radiograph
from xray.mura.studies import read_mura
from xray.network.checkpoint import load_checkpoint
from xray.predictor import Predictor

pytestmark = pytest.mark.slow

NO_LIMITS = SiteLimits(0, 0, 0, 1, 0, 1)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("validate_site") / "Site", studies=100)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report") / "out"


@pytest.fixture(scope="module")
def report(tiny_checkpoint: Path, site: Path, out: Path) -> SiteReport:
    return validate_site(ValidateSiteOptions(tiny_checkpoint, site, out=out, device="cpu", resamples=100))


def test_probabilities_and_decisions_are_those_of_the_service(
    report: SiteReport, tiny_checkpoint: Path, site: Path, out: Path
) -> None:
    checkpoint = load_checkpoint(tiny_checkpoint)
    predictor = Predictor.from_artifacts(checkpoint, load_engine(checkpoint, "cpu"))
    with (out / "studies.csv").open(newline="") as stream:
        rows = {row["study"]: row for row in csv.DictReader(stream)}
    assert len(rows) == 100
    for study in read_mura(site, "valid")[:3]:
        answer = predictor.predict([read_radiograph(record.file) for record in study.records])
        assert float(rows[study.key]["probability"]) == pytest.approx(answer.probability, abs=1e-5)
        assert rows[study.key]["decision"] == answer.decision


def test_report_is_written_for_machines_and_for_readers(report: SiteReport, out: Path) -> None:
    written = json.loads((out / "metrics.json").read_bytes())
    assert written["fit"] is False
    assert written["site"]["studies"] == 100
    assert set(written["figures"]["figures"]) == set(TITLES)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "NOT FIT for Site" in page
    assert all(reason in page for reason in report.reasons)
    assert "http" not in page
    assert page.count("data:image/svg+xml;base64,") == 3  # without a limit of familiarity there is no histogram


def test_network_without_skill_is_not_fit_and_the_reasons_are_printed(
    tiny_checkpoint: Path, site: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "training", "validate-site", "--checkpoint", str(tiny_checkpoint)]
    command += ["--data", str(site), "--out", str(tmp_path / "out"), "--device", "cpu", "--resamples", "50"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "NOT FIT for Site\n- AUROC is 0." in done.stdout
    assert "Traceback" not in done.stderr


def test_checkpoint_that_meets_every_limit_is_fit(tiny_checkpoint: Path, site: Path, tmp_path: Path) -> None:
    options = ValidateSiteOptions(tiny_checkpoint, site, out=tmp_path, limits=NO_LIMITS, device="cpu", resamples=10)
    assert validate_site(options).fit


def test_site_with_studies_of_one_class_is_never_fit(tiny_checkpoint: Path, site: Path, tmp_path: Path) -> None:
    for study in read_mura(site, "valid"):
        if study.target == 0:
            folder = study.records[0].file.parent
            shutil.copytree(folder, tmp_path / "Normal" / folder.relative_to(site))
    options = ValidateSiteOptions(
        tiny_checkpoint, tmp_path / "Normal", out=tmp_path, limits=NO_LIMITS, device="cpu", resamples=10
    )
    assert validate_site(options).reasons == (
        "0 patients have an abnormal study in scope; at least 50 are needed to call a checkpoint fit.",
    )


def test_studies_on_which_the_network_was_trained_are_refused(
    report: SiteReport, tiny_checkpoint: Path, site: Path, tmp_path: Path
) -> None:
    trained = shutil.copytree(tiny_checkpoint, tmp_path / "trained")
    manifest = json.loads((trained / "manifest.json").read_bytes())
    manifest["training_data"]["fingerprint"] = report.site.fingerprint
    (trained / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DatasetError, match="was trained on these studies"):
        validate_site(ValidateSiteOptions(trained, site, out=tmp_path / "out", device="cpu"))
    assert not (tmp_path / "out").exists()
