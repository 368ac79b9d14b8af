"""Which tests run one after the other where ``make test`` runs two processes of them (pytest-xdist).

The tests of a file stay together, for they share what takes long to start; those of a few
directories do too, because they share the machine: one Docker engine, figures, homes of servers.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Final

import pytest

_HERE: Final = Path(__file__).parent
_TOGETHER: Final = frozenset({"bench", "docker", "server"})

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A script's background job ignores Ctrl-C, and so would the commands that tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist, which reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        path = item.path.relative_to(_HERE)
        group = path.parts[0] if path.parts[0] in _TOGETHER else path.as_posix()
        item.add_marker(pytest.mark.xdist_group(group))
