"""`python -m index_builder --checkpoint … --data … --out …`, or `--pacs NAME …` for a hospital's archive."""

import sys

import tyro

from index_builder.build import BuildOptions, build
from index_builder.crawl import CrawlOptions, crawl
from xray.command_line import ending_in_one_line
from xray.gallery.gallery import GalleryManifest


def main() -> None:
    with ending_in_one_line():
        out, manifest = indexed()
        print(f"{manifest.count} entries, checkpoint {manifest.checkpoint}: {out}")


def indexed() -> tuple[object, GalleryManifest]:
    """The gallery that the command line asks for: of an archive where it names one, else of a folder."""
    of_archive = any(word.split("=")[0] == "--pacs" for word in sys.argv[1:])
    prog = "python -m index_builder"
    if of_archive:
        crawled = tyro.cli(CrawlOptions, prog=prog)
        return crawled.out, crawl(crawled)
    options = tyro.cli(
        BuildOptions,
        prog=prog,
        description=f"{BuildOptions.__doc__} `--pacs NAME --help` tells how an archive is indexed.",
    )
    return options.out, build(options)


if __name__ == "__main__":
    main()
