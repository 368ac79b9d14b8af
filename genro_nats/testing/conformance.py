"""The contract of executors as tests; run it on an executor of your own by subclassing.

::

    class TestMine(ExecutorConformance):
        lacks = {Can.END_SYNC: "a running sync function can't be left"}

        @pytest.fixture
        def make_executor(self):
            return lambda **options: MyExecutor("mine", **options)

Tests are ``async`` and marked ``anyio``: they run under whatever the fixture
``anyio_backend`` says (default: all backends that anyio knows). What a kind
can't do is stated in ``lacks`` with its reason, which pytest shows as skipped.
``options`` that tests ask for are those of ``PoolOptions``; a test that needs
an option is left out by the capability of that name.
"""

from __future__ import annotations

import pytest

from genro_nats.testing.suite.base import Can, Factory, Marks, Running, SuiteBase, until
from genro_nats.testing.suite.by_value import ByValueTests
from genro_nats.testing.suite.calls import CallTests, FunctionTests
from genro_nats.testing.suite.context import ContextTests
from genro_nats.testing.suite.ending import EndingTests
from genro_nats.testing.suite.errors import ErrorTests
from genro_nats.testing.suite.life import LifeTests
from genro_nats.testing.suite.limits import LimitTests
from genro_nats.testing.suite.maps import MapTests
from genro_nats.testing.suite.payloads import PayloadTests
from genro_nats.testing.suite.streams import StreamTests
from genro_nats.testing.suite.task_ends import CancelTests, DeadLetterTests, RetryTests
from genro_nats.testing.suite.task_keeping import KeepingTests, OrderTests, ScheduleTests
from genro_nats.testing.suite.tasks import TaskTests

__all__ = [
    "Can",
    "ExecutorConformance",
    "Factory",
    "Marks",
    "QuickConformance",
    "Running",
    "SuiteBase",
    "TaskConformance",
    "until",
]


@pytest.mark.anyio
class QuickConformance(CallTests, ErrorTests):
    """A short part of the suite: calls, results and errors."""


@pytest.mark.anyio
class ExecutorConformance(
    CallTests,
    FunctionTests,
    ByValueTests,
    ErrorTests,
    MapTests,
    StreamTests,
    EndingTests,
    LimitTests,
    LifeTests,
    PayloadTests,
    ContextTests,
):
    """All of it."""


@pytest.mark.anyio
class TaskConformance(
    TaskTests,
    RetryTests,
    CancelTests,
    DeadLetterTests,
    OrderTests,
    KeepingTests,
    ScheduleTests,
):
    """Tasks: the same on every kind, kept in memory or on servers."""
