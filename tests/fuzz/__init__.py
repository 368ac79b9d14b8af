"""Mutated messages against every decoder, and against workers and callers that serve on."""
