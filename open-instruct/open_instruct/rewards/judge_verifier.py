"""``general-<type>``: a judge type as a verifier, and the options of every judge."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flip_plugin.adapters.judged_verifier import JudgedVerifier
from flip_plugin.prompts.target import NoTarget, Target
from flip_plugin.reward.base import JudgedReward
from flip_plugin.reward.llm_judges import whole_prompt
from flip_plugin.reward.result import FlipResult
from open_instruct.rewards.judge_types import JudgeSpec, quality_messages
from open_instruct.verifiers.base import VerificationResult, VerifierConfig, VerifierFunction


@dataclass
class LMJudgeVerifierConfig(VerifierConfig):
    """Options of a judge. Lengths in tokens, timeout in seconds; `record_calls_to` is a folder.

    `llm_judge_api_base` (commas separate several servers) goes before ``HOSTED_VLLM_API_BASE``.
    What begins with ``flip_`` is for `flip_plugin.verifier.FlipVerifier` alone.
    """

    llm_judge_model: str = "hosted_vllm/Qwen/Qwen3-4B"
    llm_judge_max_tokens: int = 2048
    llm_judge_max_context_length: int = 8192
    llm_judge_temperature: float = 0.0
    llm_judge_timeout: float = 60
    llm_judge_max_concurrency: int = 256
    llm_judge_structured_output: bool = True
    llm_judge_thinking: bool = False
    llm_judge_prompts: str | None = None
    flip_similarity: str = "f1"
    flip_echo: str = "report"
    flip_reasoning: bool = True
    flip_target: str = "auto"
    seed: int = 42
    record_calls_to: str | None = None
    llm_judge_api_base: str | None = None

    def reward_options(self) -> dict[str, Any]:
        """As keywords of `flip_plugin.reward.base.JudgedReward`."""
        return {
            "judge_model": self.llm_judge_model,
            "api_base": self.llm_judge_api_base,
            "max_context_length": self.llm_judge_max_context_length,
            "max_tokens": self.llm_judge_max_tokens,
            "temperature": self.llm_judge_temperature,
            "timeout": self.llm_judge_timeout,
            "max_concurrency": self.llm_judge_max_concurrency,
            "schema": self.llm_judge_structured_output,
            "thinking": self.llm_judge_thinking,
            "prompts": self.llm_judge_prompts,
            "seed": self.seed,
            "record": self.record_calls_to,
        }


@dataclass(frozen=True)
class _Question(Target):
    label: str = ""


class _SpecReward(JudgedReward):
    """A judge type behind the client, statuses and records that FLIP uses."""

    def __init__(self, spec: JudgeSpec, **options: Any) -> None:
        super().__init__(**options)
        self.spec, self.judge_type, self.response_schema = spec, spec.name, spec.response_format

    def messages(self, target: Target, response: str) -> list[dict[str, str]]:
        label = target.label if isinstance(target, _Question) else ""
        asked = {"input": target.instruction, "output": response, "label": label}
        # A type of a prompt folder takes the folder that the run names.
        if self.spec.prompt is quality_messages:
            return quality_messages(**asked, prompts=self.prompts)
        return self.spec.messages(**asked)

    def grade(self, target: Target, text: str | None) -> FlipResult:
        try:
            reasoning, score = self.spec.extract(text)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            # What an extractor raises over a reply that is not what it expects.
            return FlipResult(status="unparsed", error=f"{type(error).__name__}: {error}")
        if score is None or not math.isfinite(score):
            return FlipResult(status="unparsed", reasoning=reasoning, error="no score in the reply")
        return FlipResult(score=float(score), reasoning=reasoning)


class LMJudgeVerifier(JudgedVerifier, VerifierFunction):
    """``general-<type>``: a judge type of `judge_utils`, asked about the whole prompt."""

    def __init__(self, spec: JudgeSpec, verifier_config: LMJudgeVerifierConfig) -> None:
        super().__init__(f"general-{spec.name}", weight=1.0, verifier_config=verifier_config)
        self.spec = spec
        self.judge_type = spec.name

    @classmethod
    def get_config_class(cls) -> type[VerifierConfig]:
        return LMJudgeVerifierConfig

    async def async_call(
        self,
        tokenized_prediction: list[int],
        prediction: str,
        label: Any,
        query: str | None = None,
        rollout_state: Mapping[str, Any] | None = None,
    ) -> VerificationResult:
        state = rollout_state or {}
        try:
            prompt = whole_prompt(state.get("messages") or (query or "").removeprefix("user: "))
        except NoTarget as error:
            return VerificationResult(None, status="no_target", details={"error": str(error)})
        if state.get("prompt_opens_think") and prediction and prediction.strip():
            prediction = f"<think>{prediction}"  # else one that was cut off could not be told from a short one
        question = _Question(prompt.instruction, [], str(label or ""))
        result = await self.reward.score(question, prediction, finish_reason=state.get("finish_reason"))
        return VerificationResult(
            result.score, reasoning=result.reasoning, status=result.status, details=result.details()
        )

    def make_reward(self) -> JudgedReward:
        assert isinstance(self.verifier_config, LMJudgeVerifierConfig)
        return _SpecReward(self.spec, **self.verifier_config.reward_options())
