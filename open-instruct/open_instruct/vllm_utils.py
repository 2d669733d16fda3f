"""Policy engines, under upstream's module name: see `open_instruct.engines.engine`."""

from open_instruct.engines.engine import EngineMaker, EngineOptions, LLMRayActor, create_vllm_engines
from open_instruct.engines.errors import EngineDied

__all__ = ["EngineDied", "EngineMaker", "EngineOptions", "LLMRayActor", "create_vllm_engines"]
