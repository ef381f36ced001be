"""An archive that gives out what a test put in, be it what was asked for or not."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from urllib.parse import parse_qs, urlsplit

from pacs.client.configuration import ArchiveConfig
from tests.dicom_files import dataset_of
from tests.pacs.client.test_http_session import DICOM_JSON, Reply, Request, answering

PARTS = 'multipart/related; type="application/dicom"; boundary=q'


@dataclass
class FakeArchive:
    """What it has, by study, series and instance as it lists them, and the paths that it was asked for.

    Attributes:
        modalities: of series, where it is not DX.
        keeps: whether it has what it is sent.
        patient_id: whose it says every study is; of the files, if none.
    """

    files: dict[tuple[str, str, str], bytes] = field(default_factory=dict)
    modalities: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    keeps: bool = True
    patient_id: str | None = None
    config: ArchiveConfig = field(default_factory=lambda: ArchiveConfig("http://127.0.0.1:9"))

    def put(self, data: bytes, listed_as: tuple[str, str, str] | None = None) -> None:
        dataset = dataset_of(data)
        place = (str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID), str(dataset.SOPInstanceUID))
        self.files[listed_as or place] = data
        self.modalities[(listed_as or place)[1]] = str(dataset.Modality)

    def radiographs(self) -> list[str]:
        """SOP Instance UIDs."""
        return [uid for _, series, uid in self.files if self.modalities[series] == "DX"]

    def reports(self, study: str) -> list[bytes]:
        return [data for (of, series, _), data in self.files.items() if of == study and self.modalities[series] == "SR"]

    def _reply(self, request: Request) -> Reply:
        url = urlsplit(request.path)
        parts = url.path.removeprefix("/dicom-web/").split("/")
        self.asked.append(url.path)
        if request.command == "POST":
            return self._stored(request)
        if len(parts) == 1:
            return self._studies(parse_qs(url.query)["StudyInstanceUID"][0])
        if len(parts) == 6:
            return self._given((parts[1], parts[3], parts[5]))
        wanted = parse_qs(url.query).get("SOPInstanceUID", [])
        places = [place for place in self.files if place[0] == parts[1]]
        if len(parts) == 5:
            places = [place for place in places if place[1] == parts[3]]
        places = [place for place in places if not wanted or place[2] in wanted]
        if parts[-1] == "series":
            series = dict.fromkeys(place[1] for place in places)
            found = [{"0020000E": _ui(each), "00080060": _cs(self.modalities[each])} for each in series]
        else:
            found = [{"00080018": _ui(place[2]), "00080016": _ui("1.2.840.10008.5.1.4.1.1.1.1")} for place in places]
        return (200, {"Content-Type": DICOM_JSON}, json.dumps(found).encode()) if found else (204, {}, b"")

    def _studies(self, study_uid: str) -> Reply:
        ids = {
            str(dataset_of(data).get("PatientID", ""))
            for (study, _, _), data in self.files.items()
            if study == study_uid
        }
        found = [
            {"0020000D": _ui(study_uid), "00100020": {"vr": "LO", "Value": [self.patient_id or patient_id]}}
            for patient_id in ids
        ]
        return (200, {"Content-Type": DICOM_JSON}, json.dumps(found).encode()) if found else (204, {}, b"")

    def _given(self, place: tuple[str, str, str]) -> Reply:
        if place not in self.files:
            return 404, {}, b""
        head = b"--q\r\nContent-Type: application/dicom\r\n\r\n"
        return 200, {"Content-Type": PARTS}, head + self.files[place] + b"\r\n--q--\r\n"

    def _stored(self, request: Request) -> Reply:
        header = Message()
        header["Content-Type"] = request.headers["Content-Type"]
        for part in request.body.split(f"--{header.get_boundary()}".encode())[1:-1]:
            if self.keeps:
                self.put(part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n"))
        return 200, {"Content-Type": DICOM_JSON}, b"{}"


def _ui(value: str) -> dict[str, object]:
    return {"vr": "UI", "Value": [value]}


def _cs(value: str) -> dict[str, object]:
    return {"vr": "CS", "Value": [value]}


@contextmanager
def fake_archive() -> Iterator[FakeArchive]:
    archive = FakeArchive()
    with answering(archive._reply) as url:
        archive.config = ArchiveConfig(url, timeout_seconds=10)
        yield archive
