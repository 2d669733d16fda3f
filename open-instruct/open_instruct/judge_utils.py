"""Judge types, under upstream's module name: see `open_instruct.rewards.judge_types`."""

from open_instruct.rewards.judge_types import (
    EXTRACTOR_MAP,
    JUDGE_PROMPT_MAP,
    RESPONSE_FORMAT_MAP,
    Extractor,
    JudgeSpec,
    MessagesFunction,
    Template,
    extract_quality,
    judge_specs,
    quality_messages,
)

__all__ = [
    "EXTRACTOR_MAP",
    "JUDGE_PROMPT_MAP",
    "RESPONSE_FORMAT_MAP",
    "Extractor",
    "JudgeSpec",
    "MessagesFunction",
    "Template",
    "extract_quality",
    "judge_specs",
    "quality_messages",
]
