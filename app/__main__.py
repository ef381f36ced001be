"""`python -m app`: serve until told to stop."""

import logging.config
import os
import signal
import sys


def main() -> None:
    # In a container nothing else ends process 1; so set before the imports, which take seconds. At once, for there is
    # nothing to finish yet, and an exception that comes up inside a library's own callback may abort the process.
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
