"""`python -m app`: serve until told to stop."""

import signal
import sys


def main() -> None:
    # In a container nothing else ends process 1; so set before the imports, which take seconds.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    import uvicorn

    from app.main import create_app
    from app.service import load_service
    from app.settings import read_settings
    from xray.errors import XrayError

    try:
        settings = read_settings()
        app = create_app(load_service(settings))
    except XrayError as error:
        sys.exit(f"osteon refuses to start: {error}")
    # Query strings can name patients, so no access log; /metrics counts the requests.
    uvicorn.run(app, host=settings.host, port=settings.port, access_log=False)


if __name__ == "__main__":
    main()
