"""Policy engines: vLLM in Ray actors, the pool of them, their weights."""
