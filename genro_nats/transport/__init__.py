"""Moving frames: over socket pairs to children, over NATS to workers."""
