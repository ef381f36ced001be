"""The rules of the layout that no linter checks."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs.draw_architecture import write
from tests.conftest import ROOT
from xray.network.checkpoint import CODE_VERSION

PACKAGES = ("app", "training", "index_builder", "pacs", "xray")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 40


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_is_small_and_says_what_it_is(module: Path) -> None:
    source = module.read_text()
    tree = ast.parse(source)
    long = [f.name for f in functions(tree) if (f.end_lineno or 0) - f.lineno >= MAX_FUNCTION_LINES]
    assert long == []
    assert len(source.splitlines()) <= MAX_FILE_LINES
    assert (ast.get_docstring(tree) or "").split("\n")[0].endswith((".", ":"))
    if module.name == "__init__.py":
        assert len(tree.body) == 1


def test_environment_is_read_by_the_settings_alone() -> None:
    readers = {
        str(module.relative_to(ROOT))
        for module in MODULES
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
    }
    assert readers <= {"app/settings.py"}


def test_version_is_one_and_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == CODE_VERSION


def test_service_starts_without_what_it_does_not_use() -> None:
    unused = "{'torchvision', 'torch._dynamo', 'matplotlib', 'sklearn', 'highdicom', 'sqlalchemy'}"
    program = f"import sys, app.main; sys.exit(str({unused} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "set()"


def test_picture_of_the_architecture_shows_the_imports_of_today(tmp_path: Path) -> None:
    write(tmp_path / "drawn.svg")
    assert (tmp_path / "drawn.svg").read_text() == (ROOT / "docs/architecture.svg").read_text(), (
        "run `make architecture`"
    )
