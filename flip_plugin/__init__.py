"""FLIP: a reward from backward inference (arXiv 2602.13551).

A judge reads a response and infers the instruction that led to it; the reward is the
word-level F1 between the inferred and the real instruction. Start at `FlipReward`.
Importing this package loads neither torch, ray, vllm nor litellm.
"""

from flip_plugin.baselines import PointwiseJudge
from flip_plugin.echo import echo_share
from flip_plugin.judge import JudgeClient, JudgeReply, run_sync
from flip_plugin.metrics import f1_score, normalize_answer
from flip_plugin.prompts import PromptSet
from flip_plugin.records import JudgeCallWriter, read_calls
from flip_plugin.reward import FlipResult, FlipReward
from flip_plugin.target import NoTarget, Target, find_target, target_from_query

__all__ = [
    "FlipResult",
    "FlipReward",
    "JudgeCallWriter",
    "JudgeClient",
    "JudgeReply",
    "NoTarget",
    "PointwiseJudge",
    "PromptSet",
    "Target",
    "echo_share",
    "f1_score",
    "find_target",
    "normalize_answer",
    "read_calls",
    "run_sync",
    "target_from_query",
]
