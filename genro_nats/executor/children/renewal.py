"""A part of the roster: all its children replaced by ones with freshly imported code, one after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genro_nats.executor.children.child import Child
    from genro_nats.executor.children.roster import Roster
    from genro_nats.executor.children.spawner import Spawner

__all__ = ["renew"]


async def renew(roster: Roster) -> None:
    """Replace the children; there are never fewer of them, and each finishes what it has.

    What is wrong with the new code shows before anything changes: then the old children go on.

    Raises:
        ConfigurationError, ExecutorError: an import failed, or the first child could not start.
        Exception: what the initializer raised.
    """
    fresh = roster.new_spawner()
    try:
        await fresh.start(roster.plan.start_timeout)
        child = await roster.new_child(fresh)
    except BaseException:
        await fresh.aclose()
        raise
    roster.follow(fresh)
    for spare in list(roster.spares):
        roster.retire(spare)  # from now on it would bring the old code back
    while True:
        roster.spares.append(child)  # it takes the place of who retires
        if (stale := _stale(roster, fresh)) is not None:
            roster.retire(stale)
        if _stale(roster, fresh) is None:
            break
        child = await roster.new_child_at_last()
    roster.keep_full()


def _stale(roster: Roster, fresh: Spawner) -> Child | None:
    """The least busy child with the old code."""
    stale = [child for child in roster.active if child.spawner is not fresh]
    return min(stale, key=lambda child: len(child.inflight), default=None)
