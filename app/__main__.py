"""`python -m app`: serve until told to stop."""

import sys

import uvicorn
from pydantic import ValidationError

from app.main import create_app
from app.service import load_service
from app.settings import Settings
from xray.errors import XrayError


def main() -> None:
    try:
        settings = Settings()
        app = create_app(load_service(settings))
    except (XrayError, ValidationError) as error:
        sys.exit(f"osteon refuses to start: {error}")
    uvicorn.run(app, host=settings.host, port=settings.port)


if __name__ == "__main__":
    main()
