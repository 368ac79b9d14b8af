"""The command ``genro-nats``: workers, the embedded server, and a demonstration."""
