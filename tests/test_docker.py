"""The files that the two images are built of are all that their programs need."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def sent_to_the_builder() -> set[str]:
    """The names that `.dockerignore`, which leaves everything out, lets in again."""
    lines = (ROOT / ".dockerignore").read_text().split()
    assert lines[0] == "*"
    return {line.removeprefix("!") for line in lines if line.startswith("!")}


def copied(target: str) -> list[str]:
    """What the stage `target` of the Dockerfile and those below it copy from the checkout."""
    stages = re.split(r"^FROM ", (ROOT / "docker" / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    stage = next(stage for stage in stages if stage.split("\n")[0].endswith(f" AS {target}"))
    below = stage.split()[0]
    here = [name for line in re.findall(r"^COPY ((?!--from).+) \S+$", stage, re.MULTILINE) for name in line.split()]
    return here if below.startswith("$") else [*copied(below), *here]


@pytest.mark.parametrize(
    ("target", "programs"),
    [
        ("service", "app.main, app.hospital.storescp, app.runtime.healthcheck"),
        ("tools", "training.__main__, index_builder.__main__"),
    ],
)
def test_image_holds_all_that_its_programs_import(target: str, programs: str, tmp_path: Path) -> None:
    for name in copied(target):
        assert name in sent_to_the_builder(), f"`COPY {name}` fails: .dockerignore leaves it out"
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(ROOT / name, place) if (ROOT / name).is_dir() else shutil.copy(ROOT / name, place)
    subprocess.run([sys.executable, "-c", f"import {programs}"], cwd=tmp_path, check=True)
