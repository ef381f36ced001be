"""Adds to the documentation's site what is not in `docs/`: pages of other folders, and a reference of the code.

MkDocs calls the functions; `mkdocs.yml` names this file. Links between files are those that work in the repository, and
are rewritten to those of the site.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("app", "pacs", "xray", "training", "index_builder")
"""Packages of the code reference, in the order of its menu."""
PATTERNS = (
    "CHANGELOG.md",
    "CODE_OF_CONDUCT.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/*.md",
    "benchmarks/*.png",
)
"""Files outside of `docs/` that the site has under the same name."""
RENAMED = {"README.md": "index.md", "NOTICE": "NOTICE.txt"}
"""Files outside of `docs/` that the site has under another name."""
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)(?=[)#])")
"""Target of a relative Markdown link, without its anchor."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the code reference to the menu."""
    pages = [{folder: f"reference/{folder}.md"} for folder in _modules_by_folder()]
    assert config.nav is not None
    config.nav.append({"Code reference": pages})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of other folders, and one page of reference for each folder of code."""
    copied = {str(path.relative_to(ROOT)): path for pattern in PATTERNS for path in ROOT.glob(pattern)}
    copied |= {site_name: ROOT / name for name, site_name in RENAMED.items()}
    for name, path in copied.items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    for folder, modules in _modules_by_folder().items():
        first, *others = (f"::: {module}\n" for module in modules)
        text = "\n".join([f"{first}    options: {{heading_level: 1}}\n", *others])
        files.append(File.generated(config, f"reference/{folder}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links between files of the repository to links between pages of the site."""
    page_name = page.file.src_uri
    if page_name.startswith("reference/"):
        return markdown
    names = {site_name: name for name, site_name in RENAMED.items()}
    in_docs = (ROOT / "docs" / page_name).exists()
    source = names.get(page_name, f"docs/{page_name}" if in_docs else page_name)

    def rewrite(link: re.Match[str]) -> str:
        target = _site_name(normpath(join(dirname(source), link[1])))
        name, _, anchor = target.partition("#")
        return relpath(name, dirname(page_name) or ".") + (f"#{anchor}" if anchor else "")

    return LINK.sub(rewrite, markdown)


def _site_name(name: str) -> str:
    """Where the site has a file of the repository, with an anchor for a module."""
    if name.endswith(".py") and name.split("/")[0] in PACKAGES:
        module = _module_name(ROOT / name)
        return f"reference/{module.rpartition('.')[0]}.md#{module}"
    return RENAMED.get(name, name.removeprefix("docs/"))


def _modules_by_folder() -> dict[str, list[str]]:
    """Names of all modules, by the package that holds them; the package itself comes first."""
    folders: dict[str, list[str]] = {}
    for path in _module_files():
        folder = ".".join(path.relative_to(ROOT).parent.parts)
        folders.setdefault(folder, []).append(_module_name(path))
    return folders


def _module_files() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted(
            (ROOT / package).rglob("*.py"), key=lambda path: (path.parent, path.name != "__init__.py", path)
        )


def _module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
