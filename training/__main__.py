"""The command line: `python -m training SUBCOMMAND`, to train, export and evaluate networks."""

import sys
from typing import Annotated

import tyro

from training.evaluate.compare import CompareOptions, compare
from training.evaluate.evaluate import EvaluateOptions, evaluate
from training.export.calibrate import CalibrateOptions, calibrate
from training.export.check_engine import CheckOptions, check_engine
from training.export.fit_scope import FitScopeOptions, describe_limits, fit_scope
from training.export.import_original import ImportOptions, import_original
from training.export.model_soup import AverageOptions, average
from training.export.quantize import QuantizeOptions, quantize
from training.fit.train import train
from training.options import TrainOptions
from training.site.adapt import AdaptOptions, adapt
from training.site.sample_size import PlanSiteOptions, plan_site
from training.site.validate_site import ValidateSiteOptions, validate_site
from xray.command_line import exit_with_message
from xray.engines.int8_graph import QUANTIZED

SiteOptions = PlanSiteOptions | ValidateSiteOptions | AdaptOptions
Options = (
    TrainOptions
    | AverageOptions
    | CalibrateOptions
    | FitScopeOptions
    | EvaluateOptions
    | CompareOptions
    | CheckOptions
    | QuantizeOptions
    | ImportOptions
    | SiteOptions
)
Command = (
    Annotated[TrainOptions, tyro.conf.subcommand("train")]
    | Annotated[AverageOptions, tyro.conf.subcommand("average")]
    | Annotated[CalibrateOptions, tyro.conf.subcommand("calibrate")]
    | Annotated[FitScopeOptions, tyro.conf.subcommand("fit-scope")]
    | Annotated[EvaluateOptions, tyro.conf.subcommand("evaluate")]
    | Annotated[CompareOptions, tyro.conf.subcommand("compare")]
    | Annotated[CheckOptions, tyro.conf.subcommand("check-engine")]
    | Annotated[QuantizeOptions, tyro.conf.subcommand("quantize")]
    | Annotated[ImportOptions, tyro.conf.subcommand("import-checkpoint")]
    | Annotated[PlanSiteOptions, tyro.conf.subcommand("plan-site")]
    | Annotated[ValidateSiteOptions, tyro.conf.subcommand("validate-site")]
    | Annotated[AdaptOptions, tyro.conf.subcommand("adapt")]
)


def main() -> None:
    """Run the subcommand of `python -m training` that the command line names."""
    with exit_with_message():
        options: Options = tyro.cli(Command, prog="python -m training")
        match options:
            case TrainOptions():
                train(options)
            case AverageOptions():
                print(f"checkpoint {average(options).id}: {options.out}")
            case CalibrateOptions():
                manifest = calibrate(options)
                print(f"{manifest.calibration}\n{manifest.thresholds}\n{manifest.uncertainty}")
            case FitScopeOptions():
                print(describe_limits(fit_scope(options)))
            case EvaluateOptions():
                evaluate(options)
                print(f"page: {options.out / 'index.html'}")
            case CompareOptions():
                compare(options)
            case CheckOptions():
                check_engine(options)
            case QuantizeOptions():
                quantize(options)
                print(f"int8: {options.checkpoint / QUANTIZED}")
            case ImportOptions():
                print(f"checkpoint {import_original(options).id}: {options.out}")
            case _:
                run_site_command(options)


def run_site_command(options: SiteOptions) -> None:
    """Run a subcommand about a site's own studies; the exit status is 1 if a checkpoint is not fit for them."""
    match options:
        case PlanSiteOptions():
            plan_site(options)
        case ValidateSiteOptions():
            if not validate_site(options).fit:
                sys.exit(1)
        case AdaptOptions():
            adapt(options)


if __name__ == "__main__":
    main()
