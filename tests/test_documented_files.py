"""Every file that the documentation names exists, so that a move or a new name cannot leave it behind."""

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

DOCUMENTS = [
    path for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", ".github/**/*.md") for path in ROOT.glob(pattern)
]
FOLDERS = sorted(path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "site")
NAMED = re.compile(rf"(?<![\w/.-])(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./-]*\.\w+")
"""A path from the root of the repository; `artifacts/runs` and the like come into being when somebody trains."""
MADE_BY_COMMANDS = ("artifacts/", ".venv/")
FILE_TO_CREATE = re.compile(r"`[\w./]+` \(new\)")
"""A file that the reader is told to write."""


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_a_document_names_exist(document: Path) -> None:
    text = FILE_TO_CREATE.sub("", document.read_text())
    named = {name.rstrip(".") for name in NAMED.findall(text)}
    missing = {name for name in named if not name.startswith(MADE_BY_COMMANDS) and not (ROOT / name).exists()}
    assert missing == set()


def test_architecture_is_read_for_names() -> None:
    assert "app/api/uploads.py" in NAMED.findall((ROOT / "docs/architecture.md").read_text())
