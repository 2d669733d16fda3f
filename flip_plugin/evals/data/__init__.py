"""Data that evaluations read or make: files, benchmarks' prompts, candidates, metrics of candidates."""
