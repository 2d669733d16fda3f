"""How many rewards of a step may be missing: beyond that, the run stops with the judge's own words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from open_instruct.data.types import Group
from open_instruct.verifiers.base import VerificationResult


class JudgeFailure(RuntimeError):
    """Too many rewards of a step are missing for the step to mean anything."""


#: Missing for what the policy wrote: counted, but no reason to stop a run.
NOT_THE_JUDGES_FAULT = frozenset({"truncated", "empty_response"})


def check_invalid_share(groups: list[Group], limit: float, where: str) -> None:
    """Raise `JudgeFailure`, with the judge's own words, when more than `limit` of the judgements failed.

    Only samples whose verifiers were asked count, also those whose reward does not depend on the answer.
    """
    judged = [s for g in groups for s in g.samples if s.per_verifier and s.status not in NOT_THE_JUDGES_FAULT]
    missing = [s for s in judged if any(result.score is None for result in s.per_verifier.values())]
    if len(missing) <= limit * len(judged):
        return
    statuses = Counter(s.status for s in missing)
    errors = Counter(e for s in missing for e in _errors(s.per_verifier.values()))
    counted = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    messages = "".join(f"\n  {count} x {error}" for error, count in errors.most_common(3))
    raise JudgeFailure(
        f"{len(missing)} of {len(judged)} rewards of {where} are missing ({counted}), which is more than "
        f"--llm_judge_max_invalid_frac {limit} allows. The judge said:{messages or ' nothing'}"
    )


def _errors(results: Iterable[VerificationResult]) -> list[str]:
    """What the verifiers without a score say of it."""
    errors = [(result.details or {}).get("error") for result in results if result.score is None]
    return [str(error)[:400] for error in errors if error]
