"""Executors: every pool has one API, whatever runs its calls."""
