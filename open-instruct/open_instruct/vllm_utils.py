"""Policy engines, under upstream's module name: see `open_instruct.engines.engine`."""

from open_instruct.engines.engine import EngineMaker, EngineOptions, LLMRayActor, create_vllm_engines

__all__ = ["EngineMaker", "EngineOptions", "LLMRayActor", "create_vllm_engines"]
