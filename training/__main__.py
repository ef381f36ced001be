"""`python -m training train|evaluate|import-checkpoint`."""

import sys

import tyro

from training.options import TrainOptions
from training.train import train
from xray.errors import XrayError


def main() -> None:
    try:
        train(tyro.cli(TrainOptions))
    except (XrayError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
