"""The command ``genro-nats``."""
