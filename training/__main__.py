"""`python -m training train|evaluate|import-checkpoint`."""

import sys
from typing import Annotated

import tyro

from training.evaluate import EvaluateOptions, evaluate
from training.import_original import ImportOptions, import_original
from training.options import TrainOptions
from training.train import train
from xray.errors import XrayError

Command = (
    Annotated[TrainOptions, tyro.conf.subcommand("train")]
    | Annotated[EvaluateOptions, tyro.conf.subcommand("evaluate")]
    | Annotated[ImportOptions, tyro.conf.subcommand("import-checkpoint")]
)


def main() -> None:
    try:
        options: TrainOptions | EvaluateOptions | ImportOptions = tyro.cli(Command, prog="python -m training")
        match options:
            case TrainOptions():
                train(options)
            case EvaluateOptions():
                evaluate(options)
                print(f"page: {options.out / 'index.html'}")
            case ImportOptions():
                print(f"checkpoint {import_original(options).id}: {options.out}")
    except (XrayError, OSError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
