"""Durable tasks on the caller's side of NATS pools."""
