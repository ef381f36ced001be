"""ImageNet weights to start training from, as torchvision publishes them."""

import torch
from torch import nn

from xray.errors import ArtifactError


def load_pretrained(name: str) -> nn.Module:
    """Return torchvision's pretrained network `name` with its ImageNet weights, which are downloaded on first use.

    Raises:
        ArtifactError: the weights are not in torch's cache and the download failed.
    """
    import torchvision  # imported here because it takes seconds and serving a DenseNet does not need it

    try:
        network: nn.Module = torchvision.models.get_model(name, weights="DEFAULT")
    except (OSError, RuntimeError) as error:
        raise ArtifactError(
            f"The ImageNet weights of {name} cannot be downloaded ({error}); start from random weights or from "
            f"a checkpoint folder instead, or copy the file into {torch.hub.get_dir()}/checkpoints."
        ) from error
    return network
