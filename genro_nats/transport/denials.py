"""What the server forbids, told to whoever waits for it: else a forbidden request would be a silent one.

A server answers a forbidden publication or subscription with an error that names the subject
and no request. nats-py lowers its case, so subjects are compared that way.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Final

from genro_nats.errors import PermissionDeniedError

__all__ = ["Denials", "Denied", "read_denial"]

log: Final = logging.getLogger("genro_nats.transport")

_TEXT: Final = re.compile(
    r"permissions violation for (publish|subscription)[^\"]*\"([^\"]+)\"(?: using queue \"([^\"]*)\")?"
)
_LOGGED: Final = 100  # kinds of denials that are logged once each, per connection


class Denied:
    """A denial as the server says it. ``subject`` is in lower case; ``queue`` too."""

    __slots__ = ("_shown", "publishing", "queue", "subject")

    def __init__(self, publishing: bool, subject: str, queue: str, shown: str) -> None:
        self.publishing = publishing
        self.subject = subject
        self.queue = queue
        self._shown = shown

    def error(self, subject: str = "") -> PermissionDeniedError:
        """An error of its own for each who waits; ``subject``: as it is really written."""
        act = "publish" if self.publishing else "subscribe"
        group = f" in the queue group {self.queue!r}" if self.queue else ""
        named = subject or self.subject
        return PermissionDeniedError(
            f"The NATS server at {self._shown} does not allow this user to {act} to {named!r}{group}. "
            "Grant it in the server's permissions, or check user, nkey_seed_file, prefix and subject.",
            operation=act,
            subject=named,
        )

    def meets(self, subject: str) -> bool:
        """Is it about this subject?"""
        return subject.lower() == self.subject


def read_denial(error: BaseException, shown: str) -> Denied | None:
    """The denial that an error of nats-py is, or None."""
    found = _TEXT.search(str(error).lower())
    if found is None:
        return None
    return Denied(found[1] == "publish", found[2], found[3] or "", shown)


class Denials:
    """The denials of one connection.

    ``listeners`` are told of each, and say whether somebody waited for it. Denied subscriptions
    are remembered until the connection is lost: then they are tried again.
    """

    def __init__(self, shown: Callable[[], str]) -> None:
        self._shown = shown
        self._refused: dict[str, Denied] = {}
        self._logged: set[str] = set()
        self.listeners: list[Callable[[Denied], bool]] = []

    def heard(self, error: BaseException) -> None:
        """An error of nats-py; most are none of ours."""
        denied = read_denial(error, self._shown())
        if denied is None:
            return
        if not denied.publishing:
            self._refused[denied.subject] = denied
        taken = [listener(denied) for listener in list(self.listeners)]
        if not any(taken):
            self._log(denied)

    def _log(self, denied: Denied) -> None:
        # The last token is a call's, or a task's: it is one permission that lacks.
        kind = f"{denied.publishing}{denied.subject.rpartition('.')[0]}"
        if kind not in self._logged and len(self._logged) < _LOGGED:
            self._logged.add(kind)
            log.warning("%s", denied.error())

    def forget(self) -> None:
        """The connection is another one: nothing has been denied there yet."""
        self._refused.clear()

    def refused(self, subject: str) -> PermissionDeniedError | None:
        """Was this subscription denied? Known for certain once the server has answered something later."""
        denied = self._refused.get(subject.lower())
        return None if denied is None else denied.error(subject)

    def require(self, *subjects: str) -> None:
        """Raise PermissionDeniedError if one of these subscriptions was denied; without any: if any was."""
        for subject in subjects or tuple(self._refused):
            error = self.refused(subject)
            if error is not None:
                raise error
