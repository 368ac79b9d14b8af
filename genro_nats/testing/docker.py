"""A nats-server in a container, by testcontainers: what ``--nats=docker`` uses."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from genro_nats.errors import ConfigurationError

__all__ = ["IMAGE", "IMAGE_VARIABLE", "docker_server"]

IMAGE: Final = "nats:2.15-alpine"
IMAGE_VARIABLE: Final = "GENRO_NATS_TEST_IMAGE"
_READY: Final = 60  # seconds


@contextmanager
def docker_server(image: str | None = None) -> Iterator[str]:
    """The URL of a server with JetStream, on a free port, which ends with the context.

    ``image``: None: that of GENRO_NATS_TEST_IMAGE, then ``IMAGE``.

    Raises:
        ConfigurationError: testcontainers is not installed, or no Docker engine answers.
    """
    with warnings.catch_warnings():
        # testcontainers uses what it deprecates itself; strict test suites must not fail for that.
        warnings.simplefilter("ignore", DeprecationWarning)
        container = _started(image or os.environ.get(IMAGE_VARIABLE) or IMAGE)
    try:
        yield container.nats_uri()
    finally:
        container.stop()


def _started(image: str) -> Any:
    try:
        from docker.errors import DockerException
        from testcontainers.community.nats import NatsContainer
    except ImportError as error:
        raise ConfigurationError(
            '--nats=docker needs testcontainers: pip install "genro-nats[testcontainers]"'
        ) from error
    try:
        return NatsContainer(image, jetstream=True, ready_timeout_secs=_READY).start()
    except DockerException as error:
        raise ConfigurationError(f"--nats=docker: the Docker engine can't run {image}: {error}") from error
