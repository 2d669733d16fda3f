"""`FlipVerifier`: FLIP as the verifier ``general-flip`` of Open Instruct, ours or upstream.

The one module here that imports `open_instruct`. A row's ``ground_truth`` is the
instruction to be recovered. Our trainer hands over the prompt's messages, from which
the context comes; upstream has only the prompt as text (see `target_from_query`).

Where results can be missing (ours), a failed judgement has score None and a status, and
all options come from the trainer's configuration. Upstream cannot abstain and knows only
``llm_judge_*``: there the ``FLIP_*`` environment adds the rest and goes first, requests
are repeated until ``llm_judge_timeout``, and what is still missing then scores
``FLIP_MISSING_SCORE`` (0.0 by default), is counted, and is logged.
"""

from __future__ import annotations

import inspect
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from flip_plugin.adapters.judged_verifier import JudgedVerifier
from flip_plugin.adapters.shared import is_due
from flip_plugin.prompts.target import NoTarget, target_from_query, target_of_row
from flip_plugin.reward.base import PRESETS
from flip_plugin.reward.environment_variables import missing_score, options_from_env, prompt_opens_think
from flip_plugin.reward.flip import FlipReward
from flip_plugin.reward.result import FlipResult
from flip_plugin.text.reasoning import with_opening
from open_instruct.ground_truth_utils import LMJudgeVerifierConfig, VerificationResult, VerifierFunction

logger = logging.getLogger(__name__)

# True in our trainer, False upstream.
CAN_BE_MISSING = "status" in inspect.signature(VerificationResult).parameters

# Seconds between two summaries of a process.
SUMMARY_EVERY_S = 300.0
# Requests a call where only the deadline is to end it.
UNTIL_DEADLINE = 1_000_000

# Fields of upstream's LMJudgeVerifierConfig, and what they are to `FlipReward`.
UPSTREAM_FIELDS = {
    "llm_judge_model": "judge_model",
    "llm_judge_max_tokens": "max_tokens",
    "llm_judge_max_context_length": "max_context_length",
    "llm_judge_temperature": "temperature",
    "llm_judge_timeout": "timeout",
    "seed": "seed",
}
# Fields of our configuration that only FLIP reads.
OUR_FIELDS = {
    "flip_similarity": "similarity",
    "flip_echo": "echo",
    "flip_reasoning": "reasoning",
    "flip_target": "target",
}


class FlipVerifier(JudgedVerifier, VerifierFunction):
    """Scores a response by how well a judge can infer its instruction from it. Pickles.

    Raises ValueError when an option is not usable, at once and not at the first response.
    """

    def __init__(self, verifier_config: Any = None) -> None:
        super().__init__("general-flip", verifier_config=verifier_config or LMJudgeVerifierConfig(), weight=1.0)
        self.tally = Tally()
        # Settled here, in the trainer's driver: a worker's environment and disk may be another's.
        self._options = our_options(self.verifier_config) if CAN_BE_MISSING else upstream_options(self.verifier_config)
        self._missing_score = None if CAN_BE_MISSING else missing_score()
        self._opens_think = not CAN_BE_MISSING and prompt_opens_think()
        reward = FlipReward(**self._options)
        if not CAN_BE_MISSING:
            _check_server(reward)
            self._options |= {"prompts": reward.prompts, "api_base": reward.client.api_bases}

    @classmethod
    def get_config_class(cls) -> type[Any]:
        """The trainer's own class of options of judges."""
        return LMJudgeVerifierConfig

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"tally": Tally()}  # each process counts for itself

    def make_reward(self) -> FlipReward:
        """The reward with the options that `__init__` settled."""
        return FlipReward(**self._options)

    async def async_call(
        self,
        tokenized_prediction: list[int],
        prediction: str,
        label: Any,
        query: str | None = None,
        rollout_state: Mapping[str, Any] | None = None,
    ) -> VerificationResult:
        """Judge `prediction`; `label` is the instruction. Does not raise for any of its inputs; upstream never."""
        if self._missing_score is None:
            result = await self._judge(prediction, label, query, rollout_state)
            return VerificationResult(
                score=result.score, reasoning=result.reasoning, status=result.status, details=result.details()
            )
        failure = None
        try:
            result = await self._judge(prediction, label, query, rollout_state)
            if result.score is not None and not math.isfinite(result.score):
                result = FlipResult(status="judge_error", error=f"the similarity is {result.score}")
        except Exception as error:  # noqa: BLE001 - upstream's rollout thread would end with it, and the run hang
            # A full disk, somebody's similarity.
            failure = error
            result = FlipResult(status="judge_error", error=f"{type(error).__name__}: {error}")
        self.tally.add(result, self._missing_score, self.stats, failure)
        if result.score is None:
            return VerificationResult(score=self._missing_score, reasoning=result.status)
        return VerificationResult(score=float(result.score), reasoning=result.reasoning)

    async def _judge(self, prediction: Any, label: Any, query: Any, rollout_state: Any) -> FlipResult:
        state = rollout_state if isinstance(rollout_state, Mapping) else {}
        try:
            messages = state.get("messages")
            if messages:
                target = target_of_row(label, messages, self.reward.target)
            else:
                target = target_from_query(query if isinstance(query, str) else None, label)
        except NoTarget as error:
            return FlipResult(status="no_target", error=str(error))
        if self._missing_score is not None and isinstance(query, str) and query and target.instruction not in query:
            self.tally.stray_target(target.instruction)
        if self._opens_think or state.get("prompt_opens_think"):
            prediction = with_opening(prediction)
        return await self.reward.score(target, prediction, finish_reason=state.get("finish_reason"))


def our_options(config: Any) -> dict[str, Any]:
    """`FlipReward`'s keywords from our trainer's configuration."""
    given = {option: getattr(config, name, None) for name, option in OUR_FIELDS.items()}
    return {**config.reward_options(), **{option: value for option, value in given.items() if value is not None}}


def upstream_options(config: Any) -> dict[str, Any]:
    """`FlipReward`'s keywords from upstream's configuration, a preset and the environment; the later goes first.

    Upstream's flags always have a value, so a preset could not show through them.
    Raises ValueError for a variable that cannot be read.
    """
    environment = options_from_env()
    preset = PRESETS.get(environment.get("preset", ""), {})
    flags = {option: getattr(config, name) for name, option in UPSTREAM_FIELDS.items() if hasattr(config, name)}
    kept = {option: value for option, value in flags.items() if option not in preset}
    return {"max_concurrency": 256, "max_attempts": UNTIL_DEADLINE, **kept, **environment}


def _check_server(reward: FlipReward) -> None:
    if reward.client.model.startswith("hosted_vllm/") and not reward.client.api_bases:
        # Every reward of such a run would be the constant.
        raise ValueError(
            f"no server for the judge {reward.client.model!r}: set HOSTED_VLLM_API_BASE (or FLIP_API_BASE) to the "
            "address of one, e.g. http://127.0.0.1:8000/v1; `flip serve --model NAME` starts one"
        )


class Tally:
    """One process's results where the trainer's metrics cannot show them: logged, at ever longer distances."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self._scores = self._echoes = 0.0
        self._with_echo = 0
        self._strays = 0
        self._summary_at = -math.inf

    @property
    def missing(self) -> int:
        """Results without a score."""
        return self.statuses.total() - self.statuses["ok"]

    def add(
        self,
        result: FlipResult,
        missing_score: float,
        stats: Callable[[], Mapping[str, Any]],
        failure: Exception | None = None,
    ) -> None:
        """Count `result`; `missing_score` stands for a missing one, `failure` is an exception to show."""
        missing = result.score is None
        self.statuses[result.status] += 1
        self._scores += result.score or 0.0
        if result.echo is not None:
            self._echoes += result.echo
            self._with_echo += 1
        if missing and is_due(self.missing):
            logger.warning(
                "general-flip: %d scores missing so far, each replaced by %g; now %s: %s",
                self.missing,
                missing_score,
                result.status,
                result.error,
                exc_info=failure,
            )
        if time.monotonic() - self._summary_at >= SUMMARY_EVERY_S:
            self._summary_at = time.monotonic()
            logger.log(logging.WARNING if self.missing else logging.INFO, "%s", self.summary(stats()))

    def stray_target(self, instruction: str) -> None:
        """Count a ``ground_truth`` that does not stand in its prompt: nearly always it is no instruction."""
        self._strays += 1
        if is_due(self._strays):
            logger.warning(
                "general-flip: %d times the ground_truth was not part of the prompt, now %r. It must be the exact "
                "instruction to be recovered, not a reference answer; else this reward means nothing",
                self._strays,
                instruction[:80],
            )

    def summary(self, stats: Mapping[str, Any]) -> str:
        """One line: how many were judged and missing, mean score and echo, the judge's latency in seconds."""
        judged = self.statuses["ok"]
        parts = [f"{judged} judged"]
        if judged:
            parts.append(f"mean score {self._scores / judged:.3f}")
        if self._with_echo:
            parts.append(f"mean echo {self._echoes / self._with_echo:.3f}")
        why = ", ".join(f"{status} {count}" for status, count in sorted(self.statuses.items()) if status != "ok")
        parts.append(f"{self.missing} missing" + (f" ({why})" if why else ""))
        if stats.get("seconds_p50") is not None:
            parts.append(f"judge p50 {stats['seconds_p50']:.2f} s, p99 {stats['seconds_p99']:.2f} s")
        if self._strays:
            parts.append(f"{self._strays} ground_truths not in their prompt")
        return f"general-flip in this process: {', '.join(parts)}"
