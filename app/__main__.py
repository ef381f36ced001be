"""Entry point of the service: `python -m app` serves until it gets SIGTERM or SIGINT."""

import logging.config
import os
import signal
import sys


def main() -> None:
    """Run the service: load the settings and the artifacts, then serve; exit with a message if either is invalid."""
    # Process 1 of a container ignores SIGTERM unless it has a handler. Set one before the imports, which take seconds.
    # Exit at once: no work has started, and an exception inside a library's callback may abort the process.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    from app.logging import LOGGING
    from app.main import create_app
    from app.replica import load_replica
    from app.runtime.server import Server
    from app.settings import read_settings
    from xray.errors import XrayError

    logging.config.dictConfig(LOGGING)
    try:
        settings = read_settings()
        replica = load_replica(settings)
    except XrayError as error:
        sys.exit(f"osteon refuses to start: {error}")
    Server(create_app(replica), settings, replica.health).run()


if __name__ == "__main__":
    main()
