"""Running judge servers: vLLM's OpenAI server in Ray actors, its options, its processes."""

from flip_plugin.serving.pool import JudgePool

__all__ = ["JudgePool"]
