"""What the documents say is what the program does: they fail here when they are stale."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.demo import SAMPLE, print_answers
from app.replica import load_replica
from app.settings import Settings
from tests.app.conftest import serving
from tests.conftest import ROOT, STARTER, beside_the_checkout
from training.evaluate.evaluate import EvaluateOptions, evaluate
from training.evaluate.evaluation import Evaluation, neighbors_table, remarks
from xray.images.decoding.decode import decode_radiograph

pytestmark = pytest.mark.slow

README, HTTP_API, MODEL_CARD = ROOT / "README.md", ROOT / "docs" / "http-api.md", ROOT / "docs" / "model-card.md"
COMMANDS = re.findall(r"^\$ (curl .+)\n((?:(?!\$ |```).*\n)*)", HTTP_API.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    checkpoint, gallery = STARTER / "checkpoint", STARTER / "gallery"
    settings = Settings(checkpoint=checkpoint, gallery=gallery, device="cpu", precision="float32", scope="flag")
    with serving(load_replica(settings)) as client:
        yield client


def send(command: str, client: httpx.Client) -> httpx.Response:
    words = shlex.split(command)
    image = ROOT / words[words.index("-F") + 1].removeprefix("file=@")
    path = next(word for word in words if word.startswith("localhost")).removeprefix("localhost:8000")
    return client.post(path, files={"file": (image.name, image.read_bytes())})


def roughly(value: object) -> object:
    """The same JSON with numbers compared to the digits a reader sees."""
    if isinstance(value, dict):
        return {name: roughly(each) for name, each in value.items()}
    if isinstance(value, list):
        return [roughly(each) for each in value]
    return pytest.approx(value, abs=2e-4) if isinstance(value, float) else value


def test_documentation_shows_one_reply_for_each_endpoint() -> None:
    endpoints = [re.search(r"8000(/\w+)", command) for command, _ in COMMANDS]
    assert [found and found[1] for found in endpoints] == ["/classify", "/cam", "/retrieve", "/analyze"]


@pytest.mark.parametrize(("command", "shown"), COMMANDS, ids=lambda text: text.split("8000")[-1][:9])
def test_documented_reply_is_what_the_starter_answers(command: str, shown: str, client: httpx.Client) -> None:
    reply = send(command, client)
    if "/cam" not in command:
        assert reply.json() == roughly(json.loads(shown))
        return
    headers = dict(line.split(": ") for line in shown.splitlines()[1:] if line)
    assert float(headers.pop("x-probability")) == pytest.approx(float(reply.headers["x-probability"]), abs=2e-4)
    assert headers.items() <= dict(reply.headers).items()
    drawn, kept = (decode_radiograph(png).pixels for png in (reply.content, (ROOT / "docs/overlay.png").read_bytes()))
    assert drawn.astype(int) == pytest.approx(kept.astype(int), abs=2)


def test_readme_shows_what_the_demo_prints(client: httpx.Client, capsys: pytest.CaptureFixture[str]) -> None:
    print_answers([SAMPLE], str(client.base_url))
    printed = capsys.readouterr().out
    assert printed in README.read_text()


@pytest.fixture(scope="module")
def evaluation(fracatlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    out = tmp_path_factory.mktemp("evaluation")
    return evaluate(
        EvaluateOptions(
            STARTER / "checkpoint",
            fracatlas,
            gallery=STARTER / "gallery",
            ood=beside_the_checkout("out-of-scope"),
            out=out,
            device="cpu",
            precision="float32",
        )
    )


def table(document: Path) -> dict[str, list[str]]:
    """First cell to the other cells of every row of a Markdown document."""
    rows = [line.strip("| ").split(" | ") for line in document.read_text().splitlines() if line.startswith("| ")]
    return {row[0]: row[1:] for row in rows}


def test_figures_of_readme_and_model_card_are_those_evaluate_prints(evaluation: Evaluation) -> None:
    card = table(MODEL_CARD)
    for row in evaluation.rows:
        names = ("auroc", "ap", "kappa", "sensitivity", "specificity")
        figures = [str(row.figures[name]) for name in names]
        assert card[row.group] == [f"{row.abnormal} of {row.studies}", *figures, f"{row.baseline_auroc:.3f}"]
    every = next(row for row in evaluation.rows if row.group == "all")
    area, _, interval = str(every.figures["auroc"]).partition(" ")
    readme = " ".join(README.read_text().split())
    assert f"On {every.studies} validation studies" in readme
    assert f"is {area} {interval.removesuffix(')')}, 95 % interval" in readme
    assert f"the body part alone gives {every.baseline_auroc:.3f}." in readme


def test_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 120


def test_model_card_quotes_what_else_evaluate_prints(evaluation: Evaluation) -> None:
    card = MODEL_CARD.read_text()
    assert [line for line in remarks(evaluation) if line not in card] == []
    rows = [f"| {' | '.join(cells)} |" for cells in neighbors_table(evaluation)]
    assert [row for row in rows if row not in card] == []
