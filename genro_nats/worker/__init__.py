"""Where calls run: the child processes, and the agent that serves them over NATS."""
