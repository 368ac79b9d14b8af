"""The embedded nats-server: a real one on loopback, private to this user, that ends with its owner."""

from __future__ import annotations

from genro_nats.server.binary import find_server, server_version
from genro_nats.server.embedded import EmbeddedServer, embedded_connection, running_embedded

__all__ = ["EmbeddedServer", "embedded_connection", "find_server", "running_embedded", "server_version"]
