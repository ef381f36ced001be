"""Log configuration: one line per event on standard error, with the time in UTC."""

import logging
import time


class UtcFormatter(logging.Formatter):
    """Format the times of log lines in UTC, for example `2026-11-24T21:40:07.123Z`."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"


LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"()": UtcFormatter, "format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {"app": {"level": "INFO"}, "uvicorn": {"level": "INFO"}},
}
"""Argument of `logging.config.dictConfig`."""
