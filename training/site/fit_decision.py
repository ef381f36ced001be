"""Fits calibration, thresholds and the uncertainty band to a site's few studies, so that they hold on further ones.

Legend: N studies.
"""

from dataclasses import replace

import numpy as np

from training.export.calibrate import (
    SENSITIVITY,
    FloatArray,
    TargetArray,
    fit_calibration,
    fit_uncertainty,
)
from xray.errors import DatasetError
from xray.network.checkpoint import CheckpointManifest


def fit_decision(
    manifest: CheckpointManifest, logits_N: FloatArray, targets_N: TargetArray, error_rate: float
) -> CheckpointManifest:
    """Return a manifest whose calibration, thresholds and uncertainty band are those of a site.

    Three numbers give the calibration and the default threshold, whatever the number of studies. The threshold is the
    share of abnormal studies: this calibrated probability is as frequent among abnormal studies as among normal ones,
    so that sensitivity + specificity is largest there (Youden 1950). The threshold with the largest sum among a few
    hundred studies would suit these studies only. The other limits are quantiles with one place to spare for a further
    study (Vovk 2012, arXiv 1209.2673).

    Args:
        logits_N: logits before calibration, from a network that was not trained on the studies.
        error_rate: maximum share of wrong decisions in either class.

    Raises:
        DatasetError: the logits rank the studies no better than chance.
    """
    calibration = fit_calibration(logits_N, targets_N)
    if calibration.slope == 0:
        raise DatasetError(
            "The checkpoint ranks these studies no better than chance, so no threshold can be fitted to them; look for "
            "errors in their labels, then try --fine-tune head or network."
        )
    probabilities_N = np.array([calibration.probability(logit) for logit in logits_N])
    share = float(targets_N.mean())
    sensitive = fit_uncertainty(targets_N, probabilities_N, 1 - SENSITIVITY).abnormal_from
    return replace(
        manifest,
        calibration=calibration,
        thresholds={"default": share, "youden": share, "sensitive": min(sensitive, share)},
        uncertainty=fit_uncertainty(targets_N, probabilities_N, error_rate),
    )


def describe_decision(manifest: CheckpointManifest) -> tuple[str, ...]:
    """Return sentences about the calibration, the thresholds and the band that were fitted to a site."""
    calibration, band = manifest.calibration, manifest.uncertainty
    assert band is not None, "fit_decision sets it"
    low, high = sorted((band.abnormal_from, band.normal_to))
    return (
        f"calibration: slope {calibration.slope:.3f}, intercept {calibration.intercept:.3f}",
        "thresholds: " + ", ".join(f"{name} {value:.3f}" for name, value in manifest.thresholds.items()),
        f"uncertain: from {low:.3f} to {high:.3f}, for at most {band.error_rate:.0%} of wrong "
        "decisions in either class",
    )
