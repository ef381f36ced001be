"""The command line: `python -m index_builder folder …` for a dataset, `… archive …` for a hospital's archive."""

import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from index_builder.build import BuildOptions, build
from index_builder.crawl import CrawlOptions, crawl
from xray.command_line import exit_with_message

FOLDER = "folder"
"""Subcommand that indexes a dataset."""
ARCHIVE = "archive"
"""Subcommand that indexes a hospital's archive."""
Options = BuildOptions | CrawlOptions
Command = Annotated[BuildOptions, tyro.conf.subcommand(FOLDER)] | Annotated[CrawlOptions, tyro.conf.subcommand(ARCHIVE)]


def main() -> None:
    """Build the gallery for the options on the command line, and print its number of entries."""
    with exit_with_message():
        arguments = with_subcommand(sys.argv[1:])
        options: Options = tyro.cli(Command, prog="python -m index_builder", args=arguments)
        manifest = build(options) if isinstance(options, BuildOptions) else crawl(options)
        print(f"{manifest.count} entries, checkpoint {manifest.checkpoint}: {options.out}")


def with_subcommand(arguments: Sequence[str]) -> list[str]:
    """Return the command line with a subcommand. If none is given, warn, and use `archive` if there is a `--pacs`."""
    if not arguments or arguments[0] in (FOLDER, ARCHIVE, "-h", "--help"):
        return list(arguments)
    subcommand = ARCHIVE if any(argument.split("=")[0] == "--pacs" for argument in arguments) else FOLDER
    print(f"A subcommand is missing; write `python -m index_builder {subcommand} …` from now on.", file=sys.stderr)
    return [subcommand, *arguments]


if __name__ == "__main__":
    main()
