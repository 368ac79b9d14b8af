"""Options of pools: what there is, where it comes from, what it comes to."""

from __future__ import annotations

from genro_nats.config.cpus import usable_cpus
from genro_nats.config.display import masked_url, shown
from genro_nats.config.kinds import ALIASES, DEFAULT_KIND, KINDS, known_kind
from genro_nats.config.merge import Resolved, conflict, requested, resolve
from genro_nats.config.options import OptionInfo, PoolOptions, describe_options
from genro_nats.config.sources import ConfigSource, Overrides, bypass_from_env, pool_variable
from genro_nats.config.units import parse_duration, parse_size
from genro_nats.config.urls import EMBEDDED, server_urls

__all__ = [
    "ALIASES",
    "DEFAULT_KIND",
    "EMBEDDED",
    "KINDS",
    "ConfigSource",
    "OptionInfo",
    "Overrides",
    "PoolOptions",
    "Resolved",
    "bypass_from_env",
    "conflict",
    "describe_options",
    "known_kind",
    "masked_url",
    "parse_duration",
    "parse_size",
    "pool_variable",
    "requested",
    "resolve",
    "server_urls",
    "shown",
    "usable_cpus",
]
