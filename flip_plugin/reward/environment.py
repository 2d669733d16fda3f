"""`FlipReward`'s options from the environment: for trainers that call a function and pass it no options.

Each option has a variable, ``FLIP_`` and its name in capitals (see `VARIABLES`): with
``FLIP_JUDGE_MODEL`` set, ``FlipReward(**options_from_env())`` is a configured reward.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

# For trainers that cannot take a missing score: what they get instead.
MISSING_SCORE = "FLIP_MISSING_SCORE"


def switch(text: str) -> bool:
    """``true``, ``1``, ``yes``, ``on`` and their opposites, in any case. Raises ValueError for anything else."""
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.strip().lower() not in known:
        raise ValueError("true or false is wanted")
    return known[text.strip().lower()]


# Keyword of `FlipReward` -> (its variable, the reading of its text, what it is).
VARIABLES: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "judge_model": ("FLIP_JUDGE_MODEL", str, "LiteLLM name of the judge, e.g. hosted_vllm/Qwen/Qwen3-4B"),
    "api_base": ("FLIP_API_BASE", str, "the judge's URL; commas separate several"),
    "api_key": ("FLIP_API_KEY", str, "key of the judge's server"),
    "similarity": ("FLIP_SIMILARITY", str, "f1, unicode_f1, rouge_l, embedding:MODEL, ..."),
    "echo": ("FLIP_ECHO", str, "report, strip or penalise what a response repeats of its instruction"),
    "reasoning": ("FLIP_REASONING", switch, "ask for reasoning before the answer"),
    "preset": ("FLIP_PRESET", str, "paper: the published settings"),
    "prompts": ("FLIP_PROMPTS", str, "folder of *.prompt files"),
    "schema": ("FLIP_SCHEMA", switch, "ask for structured output"),
    "target": ("FLIP_TARGET", str, "auto, user or system"),
    "temperature": ("FLIP_TEMPERATURE", float, "of the judge"),
    "max_tokens": ("FLIP_MAX_TOKENS", int, "of the judge's reply"),
    "max_context_length": ("FLIP_MAX_CONTEXT_LENGTH", int, "the judge's window in tokens"),
    "timeout": ("FLIP_TIMEOUT", float, "seconds a call, retries included"),
    "max_concurrency": ("FLIP_MAX_CONCURRENCY", int, "requests in flight"),
    "max_attempts": ("FLIP_MAX_ATTEMPTS", int, "requests a call"),
    "seed": ("FLIP_SEED", int, "of the judge's sampling"),
    "thinking": ("FLIP_THINKING", switch, "let the judge think first"),
    "cache_path": ("FLIP_CACHE", str, "SQLite file that keeps replies"),
    "record": ("FLIP_RECORD_CALLS_TO", str, "folder for the judge calls"),
    "skip_truncated": ("FLIP_SKIP_TRUNCATED", switch, "no score for a response that was cut off"),
}


def options_from_env(environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The options whose variables are set and not empty. Raises ValueError naming a variable that cannot be read.

    >>> options_from_env({"FLIP_JUDGE_MODEL": "hosted_vllm/m", "FLIP_MAX_TOKENS": "256"})
    {'judge_model': 'hosted_vllm/m', 'max_tokens': 256}
    """
    environ = process_environment(environ)
    options = {}
    for option, (variable, read, what) in VARIABLES.items():
        text = environ.get(variable, "")
        if not text:
            continue
        try:
            options[option] = read(text)
        except ValueError as error:
            raise ValueError(f"{variable}={text!r}: {error} ({what})") from None
    return options


def missing_score(environ: Mapping[str, str] | None = None) -> float:
    """``FLIP_MISSING_SCORE``, 0.0 by default. Raises ValueError when it is no finite number."""
    text = process_environment(environ).get(MISSING_SCORE, "") or "0"
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if value - value != 0:
        raise ValueError(f"{MISSING_SCORE}={text!r} is not a finite number")
    return value


def process_environment(given: Mapping[str, str] | None) -> Mapping[str, str]:
    """The process's own by default, looked up now: `datasets` puts another object in its place (a parallel map)."""
    return os.environ if given is None else given


# Upstream's verifiers see the response alone, not the template that came before it.
PROMPT_OPENS_THINK = "FLIP_PROMPT_OPENS_THINK"


def prompt_opens_think(environ: Mapping[str, str] | None = None) -> bool:
    """``FLIP_PROMPT_OPENS_THINK``, False by default. Raises ValueError when it is neither true nor false."""
    text = process_environment(environ).get(PROMPT_OPENS_THINK, "")
    try:
        return switch(text or "false")
    except ValueError:
        raise ValueError(f"{PROMPT_OPENS_THINK}={text!r} is neither true nor false") from None
