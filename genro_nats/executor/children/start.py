"""Starting a pool of children, again after a pause if that fails."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from genro_nats.executor.children.roster import Roster
from genro_nats.transport.backoff import backoff

if TYPE_CHECKING:
    from genro_nats.executor.children.pool import ChildPool

__all__ = ["start_roster"]

log: Final = logging.getLogger("genro_nats.children")

_PAUSES: Final = (0.25, 5.0)  # seconds, first and last


async def start_roster(pool: ChildPool) -> None:
    """Start the children; ``plan.start_retries`` times more if they fail. Raises as ``Roster.start``."""
    plan = pool.plan
    for attempt in range(plan.start_retries + 1):
        try:
            await pool.roster.start()
            return
        except Exception as error:
            if attempt == plan.start_retries:
                raise
            log.error("pool %s: its children can't be started, attempt %d: %s", plan.name, attempt + 1, error)
            plan.on_event("child.failed", error=str(error), failures=attempt + 1)
        await pool.roster.aclose()
        await asyncio.sleep(backoff(attempt, *_PAUSES))
        pool.roster = Roster(plan, pool)
