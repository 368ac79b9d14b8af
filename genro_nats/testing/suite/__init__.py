"""The conformance suite, one subject per file; ``genro_nats.testing.conformance`` puts it together."""
