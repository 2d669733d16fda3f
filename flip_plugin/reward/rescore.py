"""Score a recorded FLIP call again, without a judge."""

from __future__ import annotations

from typing import Any

from flip_plugin.replies.parsing import parse_flip_reply
from flip_plugin.text.echo import penalty
from flip_plugin.text.similarity import Similarity

FIELDS = ("score", "similarity", "status", "inferred_instruction", "error")


def rescore(call: dict[str, Any], similarity: Similarity, echo_policy: str | None = None) -> dict[str, Any]:
    """Score, status and inferred instruction of a FLIP call, read again from the judge's reply.

    No judge is asked. `echo_policy` is ``report`` or ``penalise``, by default that of the
    call. Calls without a usable reply keep their status and have no score.

    Raises ValueError where another policy would have shown the judge another text:
    ``strip`` cannot be put on afterwards, nor taken off.
    """
    recorded = call.get("echo_policy") or "report"
    policy = echo_policy or recorded
    if (policy == "strip") != (recorded == "strip"):
        raise ValueError(f"judged under echo policy {recorded!r}: {policy!r} would have shown the judge another text")
    if call["status"] == "ok" and call["reply"] is None:
        # Scored without a judge: nothing was left of the response.
        return {name: call.get(name) for name in FIELDS}
    unscored = {**dict.fromkeys(FIELDS), "status": call["status"], "error": call["error"]}
    if call["status"] not in ("ok", "unparsed") or call["finish_reason"] == "length":
        return unscored
    parsed = parse_flip_reply(call["reply"])
    if parsed.instruction is None:
        return {**unscored, "status": "unparsed", "error": parsed.problem}
    value = float(similarity(parsed.instruction, call["target"]))
    factor = penalty(call["target"], call["echo"] or 0.0) if policy == "penalise" else 1.0
    return {
        "score": value * factor,
        "similarity": value,
        "status": "ok",
        "inferred_instruction": parsed.instruction,
        "error": None,
    }
