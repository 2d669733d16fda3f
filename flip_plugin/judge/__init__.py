"""Asking a judge model: the client, its replicas, retries, cache of replies and log of calls."""
