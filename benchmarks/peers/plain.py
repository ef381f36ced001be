"""The plain peer: FastAPI with one torch model and one pass for each request, in FastAPI's own thread pool."""

import sys
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI, UploadFile

from xray.images.decoding.decode import decode_radiograph
from xray.images.preprocess import preprocess
from xray.network.checkpoint import load_checkpoint


def create_app(checkpoint: Path) -> FastAPI:
    """Create the plain peer: a FastAPI application with the checkpoint and one endpoint."""
    loaded = load_checkpoint(checkpoint)
    app = FastAPI()

    @app.post("/classify")
    def classify(file: UploadFile) -> dict[str, float]:
        pixels, _ = preprocess(decode_radiograph(file.file.read()), loaded.manifest.preprocess)
        with torch.inference_mode():
            logit = loaded.model(torch.from_numpy(pixels)[None]).logits_B
        return {"probability": float(logit.sigmoid())}

    return app


if __name__ == "__main__":
    uvicorn.run(create_app(Path(sys.argv[1])), port=int(sys.argv[2]), log_level="warning")
