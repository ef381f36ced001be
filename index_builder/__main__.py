"""`python -m index_builder --checkpoint … --data … --out …`."""

import sys

import tyro

from index_builder.build import BuildOptions, build
from xray.errors import XrayError


def main() -> None:
    try:
        options = tyro.cli(BuildOptions, prog="python -m index_builder")
        manifest = build(options)
    except (XrayError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    print(f"{manifest.count} entries, checkpoint {manifest.checkpoint}: {options.out}")


if __name__ == "__main__":
    main()
