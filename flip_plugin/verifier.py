"""`FlipVerifier`: FLIP as the verifier ``general-flip`` of Open Instruct, ours or upstream.

The one module here that imports `open_instruct`. A row's ``ground_truth`` is the
instruction to be recovered. Our trainer hands over the prompt's messages, from which
the context comes; upstream has only the prompt as text (see `target_from_query`).

Where results can be missing (ours), a failed judgement has score None and a status.
Upstream cannot abstain: there it scores ``FLIP_MISSING_SCORE`` (environment, default
0.0), is counted in `FlipVerifier.missing`, and is logged.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Mapping
from typing import Any

from flip_plugin.judge import run_sync
from flip_plugin.reward import FlipResult, FlipReward
from flip_plugin.target import NoTarget, Target, TargetChoice, find_target, target_from_query
from open_instruct.ground_truth_utils import LMJudgeVerifierConfig, VerificationResult, VerifierFunction

logger = logging.getLogger(__name__)

CAN_BE_MISSING = "status" in inspect.signature(VerificationResult).parameters
MISSING_SCORE = "FLIP_MISSING_SCORE"
RECORD_CALLS_TO = "FLIP_RECORD_CALLS_TO"


class FlipVerifier(VerifierFunction):
    """Scores a response by how well a judge can infer its instruction from it. Pickles."""

    def __init__(self, verifier_config: Any = None) -> None:
        super().__init__("general-flip", verifier_config=verifier_config or LMJudgeVerifierConfig(), weight=1.0)
        self.missing = 0
        self._reward: FlipReward | None = None

    @classmethod
    def get_config_class(cls) -> type[Any]:
        return LMJudgeVerifierConfig

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reward": None}

    def stats(self) -> dict[str, Any]:
        """Counters and latencies of this process's judge client (`JudgeClient.stats`); {} before its first call."""
        return self._reward.client.stats() if self._reward else {}

    async def async_call(
        self,
        tokenized_prediction: list[int],
        prediction: str,
        label: Any,
        query: str | None = None,
        rollout_state: Mapping[str, Any] | None = None,
    ) -> VerificationResult:
        """Judge `prediction`; `label` is the instruction. Does not raise for any of its inputs."""
        state = rollout_state if isinstance(rollout_state, Mapping) else {}
        try:
            target = _target(label, query, state.get("messages"))
        except NoTarget as error:
            return self._result(FlipResult(status="no_target", error=str(error)))
        result = await self._flip().score(target, prediction, finish_reason=state.get("finish_reason"))
        return self._result(result)

    def __call__(
        self,
        tokenized_prediction: list[int],
        prediction: str,
        label: Any,
        query: str | None = None,
        rollout_state: Mapping[str, Any] | None = None,
    ) -> VerificationResult:
        """The same, blocking; works inside a running event loop, too."""
        return run_sync(self.async_call(tokenized_prediction, prediction, label, query, rollout_state))

    def _flip(self) -> FlipReward:
        if self._reward is None:
            config: Any = self.verifier_config
            self._reward = FlipReward(
                config.llm_judge_model,
                max_context_length=config.llm_judge_max_context_length,
                max_tokens=config.llm_judge_max_tokens,
                temperature=config.llm_judge_temperature,
                timeout=config.llm_judge_timeout,
                # Upstream's configuration has not all of these.
                api_base=getattr(config, "llm_judge_api_base", None),
                max_concurrency=getattr(config, "llm_judge_max_concurrency", 256),
                schema=getattr(config, "llm_judge_structured_output", True),
                seed=getattr(config, "seed", None),
                record=getattr(config, "record_calls_to", None) or os.environ.get(RECORD_CALLS_TO),
            )
        return self._reward

    def _result(self, result: FlipResult) -> VerificationResult:
        if CAN_BE_MISSING:
            return VerificationResult(
                score=result.score, reasoning=result.reasoning, status=result.status, details=result.details()
            )
        if result.score is not None:
            return VerificationResult(score=result.score, reasoning=result.reasoning)
        self.missing += 1
        if self.missing & (self.missing - 1) == 0:  # 1, 2, 4, 8, ...: loud, not a flood
            logger.warning("%d FLIP scores missing so far; now %s: %s", self.missing, result.status, result.error)
        return VerificationResult(score=float(os.environ.get(MISSING_SCORE, "0")), reasoning=result.status)


def _target(label: Any, query: str | None, messages: Any) -> Target:
    """The label as the target; the context from the prompt's messages where the trainer has them."""
    if not messages:
        return target_from_query(query, label)
    if not isinstance(label, str) or not label.strip():
        return find_target(messages)
    wanted = label.strip()
    choices: tuple[TargetChoice, ...] = ("system", "user")
    context: list[dict[str, str]] = []
    for choice in choices:
        try:
            found = find_target(messages, choice)
        except NoTarget:
            continue
        # The turn that the label is decides what came before it; else the last turn's past.
        context = found.context
        if found.instruction == wanted:
            break
    return Target(wanted, context)
