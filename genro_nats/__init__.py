"""One call, anywhere."""
