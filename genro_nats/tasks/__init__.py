"""Durable tasks: what they are and how they change, apart from where they are stored."""
