"""`LMJudgeVerifier`: a judge type as the verifier ``general-<type>``; and the options of every judge."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flip_plugin.adapters.judged_verifier import JudgedVerifier
from flip_plugin.prompts.target import NoTarget, Prompt, Target, whole_prompt
from flip_plugin.reward.base import JudgedReward
from flip_plugin.reward.pointwise import PointwiseJudge
from flip_plugin.reward.result import FlipResult
from flip_plugin.text.reasoning import with_opening
from open_instruct.rewards.judge_types import JudgeSpec, extract_quality, quality_messages
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
class LabelledPrompt(Target):
    """A whole prompt as `instruction`, with the row's ground truth."""

    label: str = ""


class SpecJudge(PointwiseJudge):
    """The pointwise judge with the question, reading and schema of a `JudgeSpec`.

    What a spec has in common with the type ``quality`` is left to `PointwiseJudge`, which asks from the prompt folder
    that the run names.
    """

    def __init__(self, spec: JudgeSpec, **options: Any) -> None:
        super().__init__(**options)
        self.spec, self.judge_type, self.response_schema = spec, spec.name, spec.response_format

    def find(self, prompt: Prompt) -> Target:
        """The prompt itself where it has its label already."""
        return prompt if isinstance(prompt, LabelledPrompt) else super().find(prompt)

    def messages(self, target: Target, response: str) -> list[dict[str, str]]:
        """The spec's question."""
        if self.spec.prompt is quality_messages:
            return super().messages(target, response)
        label = target.label if isinstance(target, LabelledPrompt) else ""
        return self.spec.messages(input=target.instruction, output=response, label=label)

    def grade(self, target: Target, text: str | None) -> FlipResult:
        """The spec's reading of a reply; "unparsed" where it raises, or gives no finite score."""
        if self.spec.extract is extract_quality:
            return super().grade(target, text)
        try:
            reasoning, score = self.spec.extract(text)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            # What an extractor raises over a reply that is not what it expects.
            return FlipResult(status="unparsed", error=f"{type(error).__name__}: {error}")
        if score is None or not math.isfinite(score):
            return FlipResult(status="unparsed", reasoning=reasoning, error="no score in the reply")
        return FlipResult(score=float(score), reasoning=reasoning)


class LMJudgeVerifier(JudgedVerifier, VerifierFunction):
    """``general-<type>``: a judge type of `judge_types`, asked about the whole prompt."""

    def __init__(self, spec: JudgeSpec, verifier_config: LMJudgeVerifierConfig) -> None:
        super().__init__(f"general-{spec.name}", weight=1.0, verifier_config=verifier_config)
        self.spec = spec
        self.judge_type = spec.name

    @classmethod
    def get_config_class(cls) -> type[VerifierConfig]:
        """`LMJudgeVerifierConfig`."""
        return LMJudgeVerifierConfig

    async def async_call(
        self,
        tokenized_prediction: list[int],
        prediction: str,
        label: Any,
        query: str | None = None,
        rollout_state: Mapping[str, Any] | None = None,
    ) -> VerificationResult:
        """Judge `prediction` as a response to the whole prompt: the messages of `rollout_state`, else `query`."""
        state = rollout_state or {}
        try:
            prompt = whole_prompt(state.get("messages") or (query or "").removeprefix("user: "))
        except NoTarget as error:
            return VerificationResult(None, status="no_target", details={"error": str(error)})
        response = with_opening(prediction) if state.get("prompt_opens_think") else prediction
        question = LabelledPrompt(prompt.instruction, [], str(label or ""))
        result = await self.reward.score(question, response, finish_reason=state.get("finish_reason"))
        return VerificationResult(
            result.score, reasoning=result.reasoning, status=result.status, details=result.details()
        )

    def make_reward(self) -> JudgedReward:
        """The judge of this process."""
        assert isinstance(self.verifier_config, LMJudgeVerifierConfig)
        return SpecJudge(self.spec, **self.verifier_config.reward_options())
