"""Log lines for people and for machines: one line per event, on standard error."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final

__all__ = ["LEVELS", "JsonFormatter", "TextFormatter", "set_up_logging"]

LEVELS: Final = ("debug", "info", "warning", "error")


class TextFormatter(logging.Formatter):
    """``2026-01-31 12:00:00.123 INFO worker.ready worker=... host=...``"""

    default_msec_format = "%s.%03d"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")


class JsonFormatter(logging.Formatter):
    """One JSON object per line.

    ``time`` (ISO 8601, UTC), ``level``, ``logger`` and ``message``; of an event its name
    as ``event`` and its facts as ``facts``; a traceback as ``exception``.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if hasattr(record, "event"):
            line |= {"event": record.event, "facts": getattr(record, "facts", {})}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up_logging(level: str = "info", *, as_json: bool = False) -> None:
    """Send all logging of this process to standard error; ``level`` is one of LEVELS."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
