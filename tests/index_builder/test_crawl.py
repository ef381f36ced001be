"""A gallery of a hospital's archive holds what the archive has, under names that tell nobody whose it is."""

import dataclasses
import io
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import requests
from pydicom import Dataset, dcmread
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

from index_builder import fetch
from index_builder.build import BuildOptions, build
from index_builder.crawl import CrawlOptions, crawl
from index_builder.crawl_state import IndexedInstance, Origin, open_crawl_state
from index_builder.pseudonyms import Pseudonyms
from pacs.client.archive import Archive
from pacs.client.configuration import read_archives
from pacs.client.qido_json import InstanceReference
from pacs.errors import ArchiveUnavailableError
from tests.conftest import ROOT
from tests.dicom_files import CANARY, dicom
from tests.orthanc import RunningOrthanc, archives_at, free_ports, orthanc
from tests.pacs.client.test_http_session import Reply, answering
from tests.phantoms import draw_phantom
from tests.tools import needs
from tests.waiting import HUNG_SECONDS
from xray.artifact import sha256
from xray.engines.base import Engine
from xray.errors import DatasetError, InputError
from xray.gallery.gallery import Gallery, NeighborQuery
from xray.gallery.storage import ENTRIES, INDEX, load_gallery
from xray.images.radiograph import PixelArray, Radiograph
from xray.network.checkpoint import load_checkpoint
from xray.predictor import Predictor

pytestmark = [pytest.mark.slow, needs("Orthanc")]
UIDS = "1.2.826.0.1.3680043.10.1338.7"
STUDIES, VIEWS = 6, 2


@pytest.fixture(scope="module")
def reference_gallery(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled radiographs, the archive's among them, so that those are in scope."""
    folder = tmp_path_factory.mktemp("like")
    for number in range(60):
        label = "positive" if number % 4 == 0 else "negative"
        place = folder / f"Phantoms/train/XR_HAND/patient{number:05d}/study1_{label}"
        place.mkdir(parents=True)
        cv2.imwrite(str(place / "image1.png"), pixels(number))
    build(BuildOptions(tiny_checkpoint, folder / "Phantoms", folder / "gallery", device="cpu"))
    return folder / "gallery"


def pixels(number: int) -> PixelArray:
    return draw_phantom(number, number % 4 == 0, height=64, width=64)


def radiograph(study: int, view: int, **tags: Any) -> Dataset:
    uid = f"{UIDS}.{study}"
    own: dict[str, Any] = {
        "StudyInstanceUID": uid,
        "SeriesInstanceUID": f"{uid}.1",
        "SOPInstanceUID": f"{uid}.1.{view}",
        "StudyDate": f"2026010{study}",
    }
    return dcmread(io.BytesIO(dicom(pixels(VIEWS * study + view), **{**own, **tags})))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RunningOrthanc]:
    with orthanc(tmp_path / "orthanc") as started:
        with connected(started, tmp_path) as archive:
            archive.store([radiograph(study, view) for study in range(1, STUDIES + 1) for view in range(VIEWS)])
        yield started


def connected(running: RunningOrthanc, folder: Path) -> Archive:
    return Archive("ward", read_archives(archives_at(folder, running, "ward"))["ward"])


@pytest.fixture
def options(tiny_checkpoint: Path, reference_gallery: Path, tmp_path: Path) -> CrawlOptions:
    out, archives, key = tmp_path / "gallery", tmp_path / "archives.toml", tmp_path / "references.key"
    return CrawlOptions("ward", tiny_checkpoint, reference_gallery, out, archives, key=key, device="cpu", batch=2)


def command_line(options: CrawlOptions, *further: str) -> list[str]:
    """The same crawl in a process of its own."""
    names = ("pacs", "checkpoint", "reference_gallery", "out", "archives", "key")
    flags = [f"--{name.replace('_', '-')}={getattr(options, name)}" for name in names]
    return [sys.executable, "-m", "index_builder", "archive", *flags, "--device=cpu", *further]


def loaded(options: CrawlOptions) -> Gallery:
    return load_gallery(options.out, load_checkpoint(options.checkpoint).manifest.id)


def reference(options: CrawlOptions, study: int, view: int) -> str:
    assert options.key is not None
    names = Pseudonyms.from_file(options.key)
    uid = f"{UIDS}.{study}"
    return f"ward/{names.name(uid)}/{names.name(f'{uid}.1.{view}')}"


def references(options: CrawlOptions, left_out: tuple[tuple[int, int], ...] = ()) -> set[str]:
    """Of all radiographs that the archive was given, but some."""
    given = {(study, view) for study in range(1, STUDIES + 1) for view in range(VIEWS)}
    return {reference(options, *each) for each in given - set(left_out)}


def paths(options: CrawlOptions) -> set[str]:
    return {entry.path for entry in loaded(options).entries}


def test_radiographs_are_found_by_their_own_pixels_under_their_references(
    running: RunningOrthanc, options: CrawlOptions, engine: Engine
) -> None:
    assert crawl(options).count == STUDIES * VIEWS
    assert paths(options) == references(options)
    gallery = loaded(options)
    predictor = Predictor(load_checkpoint(options.checkpoint).manifest, engine)
    asked = predictor.predict([Radiograph.from_pixels(pixels(VIEWS * 3 + 1))]).embedding_D
    nearest = gallery.search(asked, NeighborQuery(k=1))[0]
    assert (nearest.entry.path, nearest.entry.body_part) == (reference(options, 3, 1), "XR_HAND")
    assert nearest.similarity == pytest.approx(1, abs=1e-4)
    others = gallery.search(asked, NeighborQuery(k=100, exclude_study=nearest.entry.study_key))
    assert {neighbor.entry.path for neighbor in others} == references(options, ((3, 0), (3, 1)))


def test_second_crawl_fetches_only_what_is_new_and_drops_what_has_gone(
    running: RunningOrthanc, options: CrawlOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crawl(options)
    before = [sha256(options.out / name) for name in (INDEX, ENTRIES)]
    crawl(options)
    assert f"{STUDIES} studies, 0 new radiographs, 0 gone" in capsys.readouterr().out
    assert [sha256(options.out / name) for name in (INDEX, ENTRIES)] == before
    running.delete_instance(f"{UIDS}.2.1.0")
    with connected(running, tmp_path) as archive:
        archive.store([radiograph(2, 5)])
    crawl(options)
    assert f"{STUDIES} studies, 1 new radiographs, 1 gone" in capsys.readouterr().out
    assert paths(options) == references(options, ((2, 0),)) | {reference(options, 2, 5)}


def test_query_chooses_studies(running: RunningOrthanc, options: CrawlOptions) -> None:
    crawl(dataclasses.replace(options, query=("StudyDate=20260104-", "ModalitiesInStudy=DX")))
    assert paths(options) == {reference(options, study, view) for study in (4, 5, 6) for view in range(VIEWS)}


def test_deleted_study_leaves_no_trace_and_never_comes_back(
    running: RunningOrthanc, options: CrawlOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    crawl(options)
    withdrawn = reference(options, 4, 0)
    row = [entry.path for entry in loaded(options).entries].index(withdrawn)
    assert row >= 0
    crawl(dataclasses.replace(options, delete=(f"{UIDS}.4", f"{UIDS}.5.1.1", "1.2.3")))
    told = capsys.readouterr().out
    for uid, said in ((f"{UIDS}.4", "2 rad"), (f"{UIDS}.5.1.1", "1 rad"), ("1.2.3", "NOTHING OF IT WAS HERE")):
        assert f"{uid}: {said}" in told
    remaining = references(options, ((4, 0), (4, 1), (5, 1)))
    assert paths(options) == remaining
    assert withdrawn.split("/")[2].encode() not in options.state_file.read_bytes()
    crawl(options)
    assert paths(options) == remaining


def test_archive_of_which_everything_is_deleted_has_no_gallery(running: RunningOrthanc, options: CrawlOptions) -> None:
    crawl(options)
    everything = tuple(f"{UIDS}.{study}" for study in range(1, STUDIES + 1))
    with pytest.raises(DatasetError, match="Nothing of archive ward"):
        crawl(dataclasses.replace(options, delete=everything))
    assert not options.out.exists()


def test_what_is_no_radiograph_of_a_limb_or_names_the_patient_is_left_out(
    running: RunningOrthanc, options: CrawlOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with connected(running, tmp_path) as archive:
        archive.store(
            [
                radiograph(1, 6, BurnedInAnnotation="YES"),
                radiograph(1, 7, BodyPartExamined="CHEST"),
                radiograph(7, 1, Modality="CT"),
                radiograph(1, 8, BurnedInAnnotation="NO", BodyPartExamined="ELBOW"),
            ]
        )
    crawl(options)
    assert paths(options) == references(options) | {reference(options, 1, 8)}
    assert "2 radiographs are left out: 1 BurnedInAnnotation, 1 OutOfScopeError" in capsys.readouterr().out
    crawl(options)
    assert "0 new radiographs" in capsys.readouterr().out
    assert "XR_ELBOW" in loaded(options).body_parts


def test_killed_crawler_goes_on_and_ends_with_the_unbroken_ones_files(
    running: RunningOrthanc, options: CrawlOptions, tmp_path: Path
) -> None:
    command = command_line(options, "--batch=1")
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not options.state_file.is_file():
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
    crawl(options)
    unbroken = dataclasses.replace(options, out=tmp_path / "unbroken")
    crawl(unbroken)
    for name in (INDEX, ENTRIES):
        assert sha256(options.out / name) == sha256(unbroken.out / name)


def test_patient_and_uids_are_in_no_byte_that_is_written_and_no_line_that_is_printed(
    running: RunningOrthanc, options: CrawlOptions, tmp_path: Path
) -> None:
    command = command_line(options, "--query", f"PatientName={CANARY[:6]}*")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    written = [file for folder in (options.out, options.state_file.parent) for file in folder.rglob("*")]
    for told in (done.stdout, done.stderr, *(file.read_bytes() for file in written if file.is_file())):
        for secret in (b"Canary", b"CANARY", b"19010203", UIDS.encode()):
            assert secret not in told


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crawl that does not wait between two attempts."""
    unavailable = retry_if_exception_type(ArchiveUnavailableError)
    for name in ("ARCHIVE_RETRY", "REQUEST_RETRY"):
        retrying = Retrying(retry=unavailable, stop=stop_after_attempt(2), reraise=True)
        monkeypatch.setattr(fetch, name, retrying)


@pytest.mark.usefixtures("hasty")
def test_archive_that_is_away_ends_the_crawl_and_the_next_one_goes_on(
    running: RunningOrthanc, options: CrawlOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, given = Archive.retrieve_instance, iter(range(5))

    def until_a_power_cut(archive: Archive, instance: InstanceReference) -> bytes:
        if next(given, None) is None:
            running.kill()
        return file(archive, instance)

    monkeypatch.setattr(Archive, "retrieve_instance", until_a_power_cut)
    with pytest.raises(ArchiveUnavailableError, match="run the same command again"):
        crawl(options)
    monkeypatch.setattr(Archive, "retrieve_instance", file)
    running.start()
    assert crawl(options).count == STUDIES * VIEWS


@contextmanager
def in_front_of(running: RunningOrthanc, odd: Callable[[str], Reply | None]) -> Iterator[str]:
    """A gateway before an archive, which answers in its stead where `odd` says so of a path."""

    def reply(request: BaseHTTPRequestHandler) -> Reply:
        answer = odd(request.path)
        if answer is not None:
            return answer
        url = f"http://127.0.0.1:{running.http_port}{request.path}"
        who, accept = (running.user, running.password), {"Accept": request.headers["Accept"]}
        real = requests.get(url, auth=who, headers=accept, timeout=HUNG_SECONDS)
        return real.status_code, {"Content-Type": real.headers.get("Content-Type", "")}, real.content

    with answering(reply) as url:
        yield url


def through(options: CrawlOptions, url: str) -> CrawlOptions:
    assert options.archives is not None
    file = options.archives.with_name("gateway.toml")
    file.write_text(f'[ward]\nurl = "{url}"\ntimeout_seconds = 2\n')
    return dataclasses.replace(options, archives=file)


def asleep() -> Reply:
    time.sleep(4)
    return 200, {}, b""


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("answer", [400, 401, 403, 409, 413, 414, 422, 500, 503, "no JSON", "no answer"])
def test_study_whose_search_fails_is_counted_and_the_crawl_ends_with_a_gallery(
    answer: int | str,
    running: RunningOrthanc,
    options: CrawlOptions,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def odd(path: str) -> Reply | None:
        if f"{UIDS}.3/series" not in path:
            return None
        if isinstance(answer, int):
            return answer, {}, b""
        return asleep() if answer == "no answer" else (200, {"Content-Type": "text/html"}, b"<html>")

    with in_front_of(running, odd) as url:
        assert crawl(through(options, url)).count == (STUDIES - 1) * VIEWS
    assert "1 studies could not be searched" in capsys.readouterr().out
    assert paths(options) == references(options, ((3, 0), (3, 1)))


@pytest.mark.usefixtures("hasty")
def test_what_is_held_of_a_study_that_cannot_be_searched_stays(
    running: RunningOrthanc, options: CrawlOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    crawl(options)
    with in_front_of(running, lambda path: (403, {}, b"") if f"{UIDS}.3/series" in path else None) as url:
        assert crawl(through(options, url)).count == STUDIES * VIEWS
    with in_front_of(running, lambda path: (404, {}, b"") if f"{UIDS}.3/series" in path else None) as url:
        assert crawl(through(options, url)).count == (STUDIES - 1) * VIEWS
    assert "1 studies were found but no longer exist" in capsys.readouterr().out


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("status", [403, 500])
def test_radiograph_that_is_not_given_is_counted_and_tried_again_by_the_next_crawl(
    status: int, running: RunningOrthanc, options: CrawlOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = f"/instances/{UIDS}.3.1.0"
    with in_front_of(running, lambda path: (status, {}, b"") if path.endswith(odd) else None) as url:
        assert crawl(through(options, url)).count == STUDIES * VIEWS - 1
    assert "1 radiographs could not be fetched" in capsys.readouterr().out
    assert crawl(options).count == STUDIES * VIEWS


def test_radiographs_of_an_unsure_modality_are_taken_in(
    running: RunningOrthanc, options: CrawlOptions, tmp_path: Path
) -> None:
    with connected(running, tmp_path) as archive:
        archive.store([radiograph(8, 1, Modality="DR", StudyDate="20260108")])
    crawl(options)
    assert reference(options, 8, 1) in paths(options)


def test_two_crawls_at_once_are_one_too_many(tmp_path: Path) -> None:
    file, origin = tmp_path / "holdings.sqlite", Origin("checkpoint", "ward", "key")
    for _ in range(2):  # the first makes the file
        with open_crawl_state(file, origin), pytest.raises(InputError, match="no other crawl uses it"):
            open_crawl_state(file, origin).__enter__()


def test_embeddings_of_other_canvases_are_made_again_and_what_is_withdrawn_stays_so(tmp_path: Path) -> None:
    file, origin = tmp_path / "holdings.sqlite", Origin("checkpoint", "ward", "key")
    with open_crawl_state(file, origin) as state:
        state.put([IndexedInstance("instance", "study", None, np.ones(4, np.float32))])
        state.forget("erased")
    with open_crawl_state(file, origin) as state:
        assert state.known_pseudonyms() == {"instance", "erased"}
    with sqlite3.connect(file) as earlier:
        earlier.execute("PRAGMA user_version = 1")
    with open_crawl_state(file, origin) as state:
        assert state.known_pseudonyms() == {"erased"}
        assert list(state.indexed()) == []


def test_wrong_options_are_refused_before_anything_is_fetched(options: CrawlOptions, tmp_path: Path) -> None:
    port = free_ports(1)[0]
    assert options.archives is not None
    options.archives.write_text(f'[ward]\nurl = "http://127.0.0.1:{port}"\n')
    with pytest.raises(InputError, match="has no archive 'other'; it has ward"):
        crawl(dataclasses.replace(options, pacs="other", out=tmp_path / "other"))
    for query in ("Canary^Bird", "PatientNam=Canary^Bird", "PatientName="):
        with pytest.raises(InputError, match="--query needs DICOM keywords") as caught:
            crawl(dataclasses.replace(options, query=(query,)))
        assert "Canary" not in str(caught.value)
    with pytest.raises(DatasetError, match="Nothing of archive ward"):
        crawl(dataclasses.replace(options, delete=("1.2",)))
    with pytest.raises(InputError, match="another key's pseudonyms"):
        crawl(dataclasses.replace(options, key=tmp_path / "another.key"))
    with pytest.raises(InputError, match="--archives is missing"):
        dataclasses.replace(options, archives=None)
    with pytest.raises(InputError, match="leave out --query"):
        dataclasses.replace(options, delete=("1.2",), query=("StudyDate=20260101",))
