"""``FLIP_*`` variables: `FlipReward`'s options for trainers that call a function and pass it no options.

Each option has a variable, ``FLIP_`` and its name in capitals (see `VARIABLES`): with
``FLIP_JUDGE_MODEL`` set, ``FlipReward(**options_from_env())`` is a configured reward. Two more variables are
not the reward's but the trainer's: `MISSING_SCORE` and `PROMPT_OPENS_THINK`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

# For trainers that cannot take a missing score: what they get instead.
MISSING_SCORE = "FLIP_MISSING_SCORE"
# For trainers whose rewards see the response alone, not the end of the prompt before it.
PROMPT_OPENS_THINK = "FLIP_PROMPT_OPENS_THINK"


def switch(text: str) -> bool:
    """``true``, ``1``, ``yes``, ``on`` and their opposites, in any case. Raises ValueError for anything else."""
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.strip().lower() not in known:
        raise ValueError("it must be true or false")
    return known[text.strip().lower()]


class Variable(NamedTuple):
    """A variable's name, the function that reads its text (ValueError: it cannot), and a line of help."""

    name: str
    read: Callable[[str], Any]
    help: str


#: Keyword of `FlipReward` -> its variable.
VARIABLES: dict[str, Variable] = {
    "judge_model": Variable("FLIP_JUDGE_MODEL", str, "LiteLLM name of the judge, e.g. hosted_vllm/Qwen/Qwen3-4B"),
    "api_base": Variable("FLIP_API_BASE", str, "the judge's URL; commas separate several"),
    "api_key": Variable("FLIP_API_KEY", str, "key of the judge's server"),
    "similarity": Variable("FLIP_SIMILARITY", str, "f1, unicode_f1, rouge_l, embedding:MODEL, ..."),
    "echo": Variable("FLIP_ECHO", str, "report, strip or penalise what a response repeats of its instruction"),
    "reasoning": Variable("FLIP_REASONING", switch, "ask for reasoning before the answer"),
    "preset": Variable("FLIP_PRESET", str, "paper: the published settings"),
    "prompts": Variable("FLIP_PROMPTS", str, "folder of *.prompt files"),
    "schema": Variable("FLIP_SCHEMA", switch, "ask for structured output"),
    "target": Variable("FLIP_TARGET", str, "auto, user or system"),
    "temperature": Variable("FLIP_TEMPERATURE", float, "of the judge"),
    "max_tokens": Variable("FLIP_MAX_TOKENS", int, "of the judge's reply"),
    "max_context_length": Variable("FLIP_MAX_CONTEXT_LENGTH", int, "the judge's window in tokens"),
    "timeout": Variable("FLIP_TIMEOUT", float, "seconds a call, retries included"),
    "max_concurrency": Variable("FLIP_MAX_CONCURRENCY", int, "requests in flight"),
    "max_attempts": Variable("FLIP_MAX_ATTEMPTS", int, "requests a call"),
    "seed": Variable("FLIP_SEED", int, "of the judge's sampling"),
    "thinking": Variable("FLIP_THINKING", switch, "let the judge think first"),
    "cache_path": Variable("FLIP_CACHE", str, "SQLite file that keeps replies"),
    "record": Variable("FLIP_RECORD_CALLS_TO", str, "folder for the judge calls"),
    "skip_truncated": Variable("FLIP_SKIP_TRUNCATED", switch, "no score for a response that was cut off"),
}


def process_environment(given: Mapping[str, str] | None) -> Mapping[str, str]:
    """`given`, else the process's own, looked up now: in a parallel map, `datasets` replaces that object."""
    return os.environ if given is None else given


def options_from_env(environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The options whose variables are set and not empty. Raises ValueError naming a variable that cannot be read.

    >>> options_from_env({"FLIP_JUDGE_MODEL": "hosted_vllm/m", "FLIP_MAX_TOKENS": "256"})
    {'judge_model': 'hosted_vllm/m', 'max_tokens': 256}
    """
    environ = process_environment(environ)
    options = {}
    for option, variable in VARIABLES.items():
        text = environ.get(variable.name, "")
        if not text:
            continue
        try:
            options[option] = variable.read(text)
        except ValueError as error:
            raise ValueError(f"{variable.name}={text!r}: {error} ({variable.help})") from None
    return options


def missing_score(environ: Mapping[str, str] | None = None) -> float:
    """``FLIP_MISSING_SCORE``, 0.0 by default. Raises ValueError when it is no finite number."""
    text = process_environment(environ).get(MISSING_SCORE, "") or "0"
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not math.isfinite(value):
        raise ValueError(f"{MISSING_SCORE}={text!r} is not a finite number")
    return value


def prompt_opens_think(environ: Mapping[str, str] | None = None) -> bool:
    """``FLIP_PROMPT_OPENS_THINK``, False by default. Raises ValueError when it is neither true nor false."""
    text = process_environment(environ).get(PROMPT_OPENS_THINK, "")
    try:
        return switch(text or "false")
    except ValueError:
        raise ValueError(f"{PROMPT_OPENS_THINK}={text!r} is neither true nor false") from None
