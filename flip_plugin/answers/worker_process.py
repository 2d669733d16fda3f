"""The process that checks responses: ``python -m flip_plugin.answers.worker_process``, started by `worker_pool`.

A line of JSON in, ``{"operation", "arguments", "cpu_seconds"}``, a line out: ``{"value": ...}``,
``{"error": text}``, or ``{"missing": package}`` where a library is not installed. A check that uses more than
`cpu_seconds` of CPU ends the process by SIGPROF: no exception could, inside a C function. It ends at the end
of its input, so never outlives its parent.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

# operation -> module and function; a module imports its library when it is imported.
OPERATIONS = {
    "number": "flip_plugin.answers.math_answers:check_number",
    "answer": "flip_plugin.answers.math_answers:check_answer",
    "instructions": "flip_plugin.answers.instructions:check_instructions",
    "instruction_label": "flip_plugin.answers.instructions:label_problem",
}
# Bytes of address space: a number with a billion digits must not take the machine's memory.
MEMORY_LIMIT = 4 << 30


def load(operation: str) -> Callable[..., Any]:
    """The function of an operation; the first call imports its library."""
    module, _, name = OPERATIONS[operation].partition(":")
    return getattr(importlib.import_module(module), name)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The reply to one request."""
    try:
        function = load(request["operation"])
    except ModuleNotFoundError as error:
        return {"missing": error.name or str(error)}
    signal.setitimer(signal.ITIMER_PROF, request["cpu_seconds"])
    try:
        return {"value": function(**request["arguments"])}
    except Exception as error:  # noqa: BLE001 - whatever a library makes of a hostile response; the parent reports it
        return {"error": f"{type(error).__name__}: {error}"[:500]}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def main() -> None:
    """Answer requests until the input ends."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no reply
    logging.disable(logging.CRITICAL)  # they log whole responses
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to handle
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    for line in sys.stdin:
        replies.write(json.dumps(answer(json.loads(line))) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
