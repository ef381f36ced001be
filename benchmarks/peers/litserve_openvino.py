"""The strongest peer: LitServe's batching with our OpenVINO engine; radiographs are sent as base64 in JSON."""

import base64
import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np

from xray.engines.registry import load_engine
from xray.images.decoding.decode import decode_radiograph
from xray.images.preprocess import preprocess
from xray.images.radiograph import PixelArray
from xray.network.checkpoint import load_checkpoint
from xray.network.model import ModelOutput

MAX_BATCH = 16
"""Maximum number of radiographs per pass; twice the default of our service on a CPU."""
BATCH_TIMEOUT_SECONDS = 0.01
"""Time that a batch waits for more radiographs, in seconds; a small share of a pass."""


class OsteonAPI(litserve.LitAPI):  # type: ignore[misc]
    """LitServe's hooks, in the order in which a request meets them."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(max_batch_size=MAX_BATCH, batch_timeout=BATCH_TIMEOUT_SECONDS)
        self.checkpoint = checkpoint

    def setup(self, device: str) -> None:
        """Load the checkpoint in LitServe's worker process."""
        loaded = load_checkpoint(self.checkpoint)
        self.spec = loaded.manifest.preprocess
        self.engine = load_engine(loaded, "cpu")

    def decode_request(self, request: dict[str, str]) -> PixelArray:
        """Return the network's input (1, S, S) for one request to LitServe."""
        return preprocess(decode_radiograph(base64.b64decode(request["image"])), self.spec)[0]

    def batch(self, inputs: list[PixelArray]) -> PixelArray:
        """Stack the inputs of several requests to LitServe."""
        return np.stack(inputs)

    def predict(self, pixels: PixelArray) -> ModelOutput:
        """Run the network on a batch that LitServe collected."""
        return self.engine.forward(pixels)

    def unbatch(self, output: ModelOutput) -> list[float]:
        """Return the probability for each request in LitServe's batch."""
        return [float(probability) for probability in output.logits_B.sigmoid()]

    def encode_response(self, output: float) -> dict[str, float]:
        """Return LitServe's JSON reply to one request."""
        return {"probability": output}


def main(checkpoint: Path, port: int) -> None:
    """Serve the checkpoint with LitServe on a port."""
    server: Any = litserve.LitServer(OsteonAPI(checkpoint), accelerator="cpu", timeout=False)
    server.run(port=port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
