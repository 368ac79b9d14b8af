"""Durable tasks on the worker's side: taken, claimed, run, settled."""
