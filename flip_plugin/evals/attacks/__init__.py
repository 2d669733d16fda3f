"""What a response can do to get a higher score than it deserves, as functions on responses.

    attack = get_attacks(["echo"])[0]
    attack(item, response, seed=1)          # 'You asked: "..."  ...'

One file a kind; `registry` says what an attack is and how to add one.
"""

from flip_plugin.evals.attacks import echoes, flattery, forged, keys, padding  # fills ATTACKS, in this order
from flip_plugin.evals.attacks.registry import (
    ATTACKS,
    Attack,
    families,
    get_attacks,
    instruction_of,
    register,
    with_function,
)

# One or two of each kind: the default of a robustness run.
DEFAULT_SUITE = (
    "echo",
    "echo_only",
    "echo_reordered",
    "echo_synonyms",
    "echo_short_runs",
    "echo_disguised",
    "praise",
    "score_demand",
    "forged_sections",
    "forged_ending",
    "master_key",
    "padding_filler",
    "padding_repeat",
    "told_instruction",
    "hidden_comment",
    "json_reply",
    "fake_thinking",
)

__all__ = [
    "ATTACKS",
    "DEFAULT_SUITE",
    "Attack",
    "echoes",
    "families",
    "flattery",
    "forged",
    "get_attacks",
    "instruction_of",
    "keys",
    "padding",
    "register",
    "with_function",
]
