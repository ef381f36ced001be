"""The command line has two subcommands, and still takes what was written before it had them."""

import sys
from pathlib import Path

import pytest

from index_builder import __main__ as command_line
from index_builder.build import BuildOptions
from index_builder.crawl import CrawlOptions
from xray.gallery.gallery import GalleryManifest

FOLDER = ["--checkpoint=c", "--data=d", "--out=o"]
ARCHIVE = ["--pacs", "ward", "--checkpoint=c", "--out=o", "--archives=a"]
MANIFEST = GalleryManifest(checkpoint="c", dataset="d", split="train", only="all", dimension=1, count=7)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[BuildOptions | CrawlOptions]:
    """The options with which a gallery was to be built."""
    options: list[BuildOptions | CrawlOptions] = []

    def remember(each: BuildOptions | CrawlOptions) -> GalleryManifest:
        options.append(each)
        return MANIFEST

    for name in ("build", "crawl"):
        monkeypatch.setattr(command_line, name, remember)
    return options


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["index_builder", *arguments])
    command_line.main()


@pytest.mark.parametrize("subcommand", [["folder"], []])
def test_folder_is_indexed(
    subcommand: list[str],
    called: list[BuildOptions | CrawlOptions],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(monkeypatch, *subcommand, *FOLDER)
    assert called == [BuildOptions(Path("c"), Path("d"), Path("o"))]
    printed = capsys.readouterr()
    assert printed.out == "7 entries, checkpoint c: o\n"
    assert printed.err == ("" if subcommand else _warning("folder"))


@pytest.mark.parametrize("subcommand", [["archive"], []])
@pytest.mark.parametrize("flag", ["--reference-gallery", "--like"])
def test_archive_is_indexed(
    subcommand: list[str],
    flag: str,
    called: list[BuildOptions | CrawlOptions],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(monkeypatch, *subcommand, *ARCHIVE, flag, "g")
    assert called == [CrawlOptions("ward", Path("c"), Path("g"), Path("o"), Path("a"))]
    assert capsys.readouterr().err == ("" if subcommand else _warning("archive"))


def _warning(subcommand: str) -> str:
    return f"A subcommand is missing; write `python -m index_builder {subcommand} …` from now on.\n"
