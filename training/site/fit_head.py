"""Refits the classifier of a network to a site's studies, with frozen features, and near its old weights.

A study's logit is taken as linear in the change of the classifier's weights: with mean pooling it is, and log-mean-exp
is nearly linear for a small change. So one pass over the radiographs gives everything that the fit needs. A second pass
gives the exact logits of studies that a fit has not seen, to calibrate on.

Legend: N studies, n radiographs of a study, C channels of the last feature map, h, w its cells.
"""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from training.export.calibrate import FloatArray
from training.fit.loss import study_logits
from training.site.fit_weights import LinearStudies, WeightChange, choose_change
from training.site.site_data import SiteImages
from xray.engines.batch_inference import prepare_ahead
from xray.images.preprocess import preprocess
from xray.images.radiograph import PixelArray, Radiograph
from xray.network.checkpoint import Checkpoint
from xray.network.model import XrayNetwork


@dataclass(frozen=True)
class RefittedHead:
    """The result of refitting a classifier to a site.

    Attributes:
        model: the network with the new classifier, on the CPU.
        held_out_logits_N: logit of each study from a classifier that was fitted without its fold of patients.
        remark: sentence about the change.
    """

    model: XrayNetwork
    held_out_logits_N: FloatArray
    remark: str


def refit_head(checkpoint: Checkpoint, site: SiteImages, device: torch.device) -> RefittedHead | None:
    """Refit a checkpoint's classifier to a site; return None if no change predicts further studies better."""
    chosen = choose_change(linearize(checkpoint, site, device))
    if chosen is None:
        return None
    models = [with_change(checkpoint.model, change) for change in chosen.fold_changes]
    logits_N = np.empty(len(site.studies))
    with torch.inference_mode():
        for number, features_nChw in enumerate(_features(checkpoint, site, device, "held-out logits")):
            logits_N[number] = float(_study_logit(models[chosen.folds_N[number]], features_nChw, checkpoint))
    remark = (
        f"head: the cross-entropy of held-out studies is {chosen.loss:.3f}; it was {chosen.old_loss:.3f} with the old "
        f"weights (penalty on their change {chosen.penalty:g})"
    )
    return RefittedHead(with_change(checkpoint.model, chosen.change).cpu(), logits_N, remark)


def linearize(checkpoint: Checkpoint, site: SiteImages, device: torch.device) -> LinearStudies:
    """Return the logit of each of a site's studies, and its gradient by the weights of the checkpoint's head."""
    logits, gradients = [], []
    for features_nChw in _features(checkpoint, site, device, "gradients"):
        logit = _study_logit(checkpoint.model, features_nChw, checkpoint)
        (gradient_1C,) = torch.autograd.grad(logit, checkpoint.model.classifier.weight)
        logits.append(float(logit.detach()))
        gradients.append(gradient_1C[0].cpu().double().numpy())
    return LinearStudies(
        logits_N=np.array(logits),
        gradients_NC=np.array(gradients),
        targets_N=site.targets_N,
        patients_N=np.array([study.patient for study in site.studies]),
    )


def _features(checkpoint: Checkpoint, site: SiteImages, device: torch.device, name: str) -> Iterator[Tensor]:
    """Yield the last feature maps of each study's radiographs, (n, C, h, w), with a progress bar."""
    model = checkpoint.model.to(device).eval()

    def canvas(radiograph: Radiograph) -> PixelArray:
        return preprocess(radiograph, checkpoint.manifest.preprocess)[0]

    canvases = prepare_ahead(canvas, site.radiographs)
    for study in tqdm(site.studies, desc=name, unit="study"):
        pixels_n1SS = torch.from_numpy(np.stack(list(islice(canvases, len(study.records)))))
        with torch.no_grad():
            features_nChw = model.forward_features(pixels_n1SS.to(device))
        yield features_nChw


def _study_logit(model: XrayNetwork, features_nChw: Tensor, checkpoint: Checkpoint) -> Tensor:
    """Return the logit of a study, a scalar, from the maps of its radiographs."""
    output = model.forward_head(features_nChw)
    return study_logits(output, (len(features_nChw),), checkpoint.manifest.study_pooling)[0]


def with_change(model: XrayNetwork, change: WeightChange) -> XrayNetwork:
    """Return a network whose head has the change of weights; the layers before it are shared with the given one."""
    changed = deepcopy(model, {id(model.features): model.features})  # what the memo holds is not copied
    with torch.no_grad():
        changed.classifier.weight.add_(torch.from_numpy(change.weights_C).to(changed.classifier.weight))
        changed.classifier.bias.add_(change.bias)
    return changed
