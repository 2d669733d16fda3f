"""`ifeval`: the share of a row's verifiable instructions that the response follows."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

from flip_plugin.answers.worker_pool import shared_pool
from open_instruct.verifiers.base import BadLabel, VerificationResult, VerifierFunction
from open_instruct.verifiers.checked import CheckedInWorker
from open_instruct.verifiers.ifeval_functions import requirement_of_function
from open_instruct.verifiers.text import without_thinking

FORMAT = (
    'ifeval wants {"instruction_id": ["punctuation:no_comma"], "kwargs": [{}]} with an entry of kwargs for each '
    'instruction, or {"func_name": "validate_no_commas"}, as text or as it is'
)
MAX_LABEL = 50_000


class IFEvalVerifier(CheckedInWorker, VerifierFunction):
    """Mean over the instructions of 1 (followed) or 0, by lm-eval's strict check; 0 for an empty response."""

    operation = "instructions"
    example = ({"instruction_id": ["punctuation:no_comma"], "kwargs": [{}]}, "None here.")

    def __init__(self, verifier_config: Any = None) -> None:
        super().__init__("ifeval", verifier_config=verifier_config, weight=1.0)

    def check_label(self, label: Any) -> None:
        """Raises `BadLabel`, also for an instruction that needs data which is not on this machine."""
        reply = shared_pool().call("instruction_label", requirements=requirements_of(label))
        problem = reply.value if reply.status == "ok" else reply.error
        if problem:
            raise BadLabel(problem)

    def request(self, label: Any, response: str) -> dict[str, Any]:
        """The label's requirements, and the response without its thinking."""
        return {"requirements": requirements_of(label), "response": without_thinking(response)}

    def read(self, value: Any) -> VerificationResult:
        """The share of requirements that are met, or why none could be tried."""
        if "met" not in value:
            return VerificationResult(None, status=value["status"], details={"error": value["problem"]})
        met = value["met"]
        return VerificationResult(sum(met) / len(met), details={"followed": met})


def requirements_of(label: Any) -> list[dict[str, Any]]:
    """A label as the requirements of `flip_plugin.answers.instructions`. Raises `BadLabel`.

    The label is an object, a list that holds one, or the JSON or Python text of either. It has `instruction_id`
    (or IFEval's own `instruction_id_list`) and `kwargs`; or the `func_name` and arguments of the older data.
    """
    label = _structure(label)
    if isinstance(label, Sequence) and len(label) == 1:
        label = _structure(label[0])
    if not isinstance(label, Mapping):
        raise BadLabel(f"is a {type(label).__name__}: {FORMAT}")
    if "func_name" in label:
        return [requirement_of_function(label)]
    ids = label.get("instruction_id", label.get("instruction_id_list"))
    all_kwargs = label.get("kwargs")
    if not _is_list(ids) or not all(isinstance(one, str) for one in ids) or not _is_list(all_kwargs):
        raise BadLabel(f"has not the lists instruction_id and kwargs: {FORMAT}")
    if not ids or len(ids) != len(all_kwargs):
        raise BadLabel(f"has {len(ids)} instructions and {len(all_kwargs)} kwargs: {FORMAT}")
    requirements = []
    for name, kwargs in zip(ids, all_kwargs, strict=True):
        if not isinstance(kwargs, Mapping | None):
            raise BadLabel(f"has a {type(kwargs).__name__} among its kwargs: {FORMAT}")
        given = {key: value for key, value in (kwargs or {}).items() if value is not None}
        requirements.append({"name": name, "checks": [[name, given]]})
    return requirements


def _structure(label: Any) -> Any:
    if not isinstance(label, str):
        return label
    if len(label) > MAX_LABEL:
        raise BadLabel(f"has {len(label)} characters; at most {MAX_LABEL} are read")
    try:
        return json.loads(label)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(label.strip())  # as the public data sets write it
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise BadLabel(f"{label[:80]!r} is neither JSON nor a Python literal: {FORMAT}") from None


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
