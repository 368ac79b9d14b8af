"""A real Docker engine: the image, the compose fleet, and testcontainers."""
