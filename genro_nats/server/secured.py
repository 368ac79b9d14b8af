"""The configuration of a nats-server whose users are known by their keys, as a text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from genro_nats.server.config import quote

__all__ = ["SecuredConfig", "SecuredUser"]

_ANSWERS = 'allow_responses: { max: 1, expires: "1m" }'


@dataclass(frozen=True, slots=True)
class SecuredUser:
    """A user by its public nkey, and what it may do. ``answers``: once to each message it gets."""

    name: str
    role: str
    public: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    answers: bool = False


@dataclass(frozen=True, slots=True)
class SecuredConfig:
    """All that such a server is told. ``store_dir``: of JetStream; ``monitoring``: a port, on loopback.

    ``tls_ca``: clients must show a certificate that this authority signed.
    """

    host: str
    port: int
    store_dir: Path
    users: tuple[SecuredUser, ...]
    monitoring: int | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None

    def render(self) -> str:
        """The text of the file."""
        lines = [
            "# Written by `genro-nats auth init`. Run it again with --force to change it: keys are kept.",
            f"host: {quote(self.host)}",
            f"port: {self.port}",
            f"jetstream {{ store_dir: {quote(str(self.store_dir))} }}",
            *([f'http: "127.0.0.1:{self.monitoring}"'] if self.monitoring is not None else []),
            *self._tls(),
            "authorization {",
            "  users: [",
            *(line for user in self.users for line in _user(user)),
            "  ]",
            "}",
        ]
        return "\n".join(lines) + "\n"

    def _tls(self) -> Iterable[str]:
        if self.tls_cert is None:
            return
        yield "tls {"
        yield f"  cert_file: {quote(str(self.tls_cert))}"
        yield f"  key_file: {quote(str(self.tls_key))}"
        if self.tls_ca is not None:
            yield f"  ca_file: {quote(str(self.tls_ca))}"
            yield "  verify: true"
        yield "}"


def _user(user: SecuredUser) -> Iterable[str]:
    yield f"    # {user.name}: {user.role}"
    yield f"    {{ nkey: {quote(user.public)}, permissions: {{"
    for act, subjects in (("publish", user.publish), ("subscribe", user.subscribe)):
        yield f"      {act}: {{ allow: ["
        yield from (f"        {quote(subject)}" for subject in subjects)
        yield "      ] }"
    if user.answers:
        yield f"      {_ANSWERS}"
    yield "    } }"
