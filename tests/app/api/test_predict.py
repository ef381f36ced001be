"""The replies of the endpoints equal the output of the network."""

import base64
import concurrent.futures
import io
import re
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from app.replica import Replica, assemble
from tests.app.conftest import metric, png, serving
from tests.phantoms import draw_phantom
from xray.gallery.entries import UNKNOWN
from xray.images.decoding.decode import decode_radiograph


def files(*images: bytes) -> list[tuple[str, tuple[str, bytes]]]:
    return [("file", (f"image{number}.png", image)) for number, image in enumerate(images, start=1)]


def pixels(reply: httpx.Response) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(reply.content))).astype(int)


def test_served_logit_equals_the_predictors(client: httpx.Client, service: Replica, radiograph: bytes) -> None:
    expected = service.predictor.bundle.predictor.predict([decode_radiograph(radiograph)]).radiographs[0]
    reply = client.post("/classify", files=files(radiograph)).json()
    assert reply["radiographs"][0]["logit"] == pytest.approx(expected.logit, abs=1e-4)
    assert reply["radiographs"][0]["probability"] == pytest.approx(expected.probability, abs=1e-4)
    assert (reply["radiographs"][0]["width"], reply["radiographs"][0]["height"]) == (128, 160)


def test_three_files_are_one_study_with_their_mean_probability(client: httpx.Client) -> None:
    views = [png(draw_phantom(seed=seed)) for seed in range(3)]
    alone = [client.post("/classify", files=files(view)).json()["probability"] for view in views]
    reply = client.post("/classify", files=files(*views)).json()
    assert reply["probability"] == pytest.approx(np.mean(alone), abs=1e-5)
    assert [each["name"] for each in reply["radiographs"]] == ["image1.png", "image2.png", "image3.png"]


def test_label_says_on_which_side_of_the_threshold_the_probability_lies(
    client: httpx.Client, radiograph: bytes
) -> None:
    reply = client.post("/classify", files=files(radiograph)).json()
    assert reply["label"] == ("abnormal" if reply["probability"] >= reply["threshold"] else "normal")


def test_raw_body_and_form_get_the_same_answer(client: httpx.Client, radiograph: bytes) -> None:
    form = client.post("/classify", files=files(radiograph)).json()
    raw = client.post("/classify", content=radiograph, headers={"Content-Type": "image/png"}).json()
    assert raw["probability"] == pytest.approx(form["probability"], abs=1e-6)


def test_cam_has_the_uploads_size_and_is_hottest_where_the_map_peaks(client: httpx.Client) -> None:
    upload = files(png(draw_phantom(seed=3, height=512, width=410)))
    heat_map = pixels(client.post("/cam?style=map", files=upload))
    overlay = pixels(client.post("/cam?alpha=1", files=upload))
    assert heat_map.shape == (512, 410)
    assert overlay.shape == (512, 410, 3)
    redness = 2 * overlay[..., 0] - overlay[..., 1] - overlay[..., 2]
    hottest = np.unravel_index(redness.argmax(), redness.shape)
    assert heat_map[hottest] >= 252  # JET has one color for two gray levels of the map


def test_overlay_without_opacity_is_the_radiograph(client: httpx.Client) -> None:
    phantom = draw_phantom(seed=3)
    overlay = pixels(client.post("/cam?alpha=0", files=files(png(phantom))))
    assert (overlay == phantom[..., np.newaxis]).all()


def test_cam_headers_carry_the_probability_of_classify(client: httpx.Client, radiograph: bytes) -> None:
    classified = client.post("/classify", files=files(radiograph)).json()
    headers = client.post("/cam", files=files(radiograph)).headers
    assert float(headers["X-Probability"]) == pytest.approx(classified["probability"], abs=1e-5)
    assert headers["X-Checkpoint"] == classified["checkpoint"]


def test_indexed_radiographs_find_themselves_first_under_their_dataset_path(
    client: httpx.Client, dataset: Path
) -> None:
    for file in sorted((dataset / "train").rglob("*.png"))[:6]:
        nearest = client.post("/retrieve", files=files(file.read_bytes())).json()["neighbors"][0]
        assert nearest["path"] == file.relative_to(dataset.parent).as_posix()
        assert nearest["similarity"] > 0.999


def test_retrieve_honors_filters_and_excluded_study(client: httpx.Client, dataset: Path) -> None:
    file = min((dataset / "train").rglob("*.png"))
    body_part, patient, folder = file.relative_to(dataset / "train").parts[:3]
    study = f"{body_part}/{patient}/{folder.split('_')[0]}"
    for written in (study, f"{study}_positive", file.relative_to(dataset.parent).parent.as_posix()):
        query: dict[str, str | int] = {"k": 50, "body_part": body_part, "exclude_study": written}
        neighbors = client.post("/retrieve", params=query, files=files(file.read_bytes())).json()["neighbors"]
        assert {each["body_part"] for each in neighbors} == {body_part}
        assert study not in {f"{each['body_part']}/{each['patient']}/{each['study']}" for each in neighbors}
    query = {"k": 50, "label": "abnormal"}
    neighbors = client.post("/retrieve", params=query, files=files(file.read_bytes())).json()["neighbors"]
    assert {each["label"] for each in neighbors} == {"abnormal"}


def test_analyze_holds_the_three_answers(client: httpx.Client, radiograph: bytes) -> None:
    reply = client.post("/analyze?k=3", files=files(radiograph)).json()
    assert reply["probability"] == client.post("/classify", files=files(radiograph)).json()["probability"]
    assert reply["neighbors"] == client.post("/retrieve?k=3", files=files(radiograph)).json()["neighbors"]
    kind, data = reply["cams"][0].split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == client.post("/cam", files=files(radiograph)).content
    assert client.post("/analyze?cam=none", files=files(radiograph)).json()["cams"] == []


def test_many_callers_at_once_each_get_their_own_answer(client: httpx.Client) -> None:
    phantoms = [png(draw_phantom(seed=seed)) for seed in range(12)]
    alone = [client.post("/classify", files=files(each)).json()["radiographs"][0]["logit"] for each in phantoms]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda each: client.post("/classify", files=files(each)).json(), phantoms))
    assert [reply["radiographs"][0]["logit"] for reply in replies] == pytest.approx(alone, abs=1e-4)


def test_info_and_metrics_tell_what_runs(client: httpx.Client, service: Replica, radiograph: bytes) -> None:
    info = client.get("/info").json()
    assert info["checkpoint"] == service.predictor.bundle.predictor.manifest.id
    assert info["gallery"]["entries"] == len(service.predictor.bundle.gallery.entries)
    assert info["gallery"]["memory_bytes"] == service.predictor.bundle.gallery.memory_bytes > 0
    counter = 'osteon_requests_total{endpoint="/classify",status="200"}'
    before = metric(client, counter)
    client.post("/classify", files=files(radiograph))
    assert metric(client, counter) == before + 1


def test_documentation_page_is_where_a_browser_comes_asks_no_other_host_and_tells_of_problems(
    client: httpx.Client,
) -> None:
    page = client.get("/", follow_redirects=True)
    assert (page.status_code, page.url.path) == (200, "/docs")
    for link in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert link.startswith("/")
        assert client.get(link).status_code == 200
    for name in ("classify", "cam", "retrieve", "analyze"):
        responses = client.get("/openapi.json").json()["paths"][f"/{name}"]["post"]["responses"]
        assert "application/problem+json" in responses["4XX"]["content"]


def test_reply_tells_what_its_time_went_into(client: httpx.Client) -> None:
    def stages(path: str, seed: int) -> dict[str, float]:
        header = client.post(path, files=files(png(draw_phantom(seed)))).headers["Server-Timing"]
        return {name: float(value) for name, value in re.findall(r"(\w+);dur=([\d.]+)", header)}

    classified, analyzed = stages("/classify", 901), stages("/analyze", 902)
    assert list(classified) == ["read", "decode", "wait", "forward", "total"]
    assert set(analyzed) == {*classified, "encode", "search"}
    assert classified["forward"] > 0
    assert sum(classified.values()) - classified["total"] <= classified["total"] + 1
    assert "total" in client.get("/info").headers["Server-Timing"]
    for stage in ("read", "decode", "wait", "forward", "search", "encode"):
        assert metric(client, f'osteon_stage_seconds_count{{stage="{stage}"}}') >= 1


def test_refusals_are_counted_by_their_reason(client: httpx.Client) -> None:
    counter = 'osteon_refusals_total{reason="UnsupportedFormatError"}'
    before = metric(client, counter)
    client.post("/classify", files=files(b"no image"))
    assert metric(client, counter) == before + 1


def test_gallery_of_an_archive_answers_with_references_and_no_opinion(service: Replica, radiograph: bytes) -> None:
    gallery = service.predictor.bundle.gallery
    entries = tuple(
        replace(
            entry, path=f"ward/{row // 2:032x}/{row:032x}", patient=UNKNOWN, study=f"{row // 2:032x}", label=UNKNOWN
        )
        for row, entry in enumerate(gallery.entries)
    )
    bundle = replace(service.predictor.bundle, gallery=replace(gallery, entries=entries))
    with serving(assemble(service.settings, bundle)) as client:
        reply = client.post("/retrieve?k=3", files=files(radiograph)).json()
        assert reply["abnormal_share"] is None
        nearest = reply["neighbors"][0]
        assert (nearest["path"].split("/")[:2], nearest["label"]) == (["ward", nearest["study"]], UNKNOWN)
        for written in (nearest["study"], nearest["path"]):
            query = {"k": 50, "exclude_study": written}
            others = client.post("/retrieve", params=query, files=files(radiograph)).json()["neighbors"]
            assert others
            assert nearest["study"] not in {each["study"] for each in others}
