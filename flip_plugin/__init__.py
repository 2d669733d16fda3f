"""FLIP: a reward from backward inference (arXiv 2602.13551).

A judge reads a response and infers the instruction that led to it; the reward is the
word-level F1 between the inferred and the real instruction. Start at `FlipReward`.
Importing this package loads neither torch, ray, vllm nor litellm.
"""

from flip_plugin.baselines import ListwiseJudge, PairwiseJudge, PointwiseJudge
from flip_plugin.echo import echo_share, strip_echo
from flip_plugin.judge import JudgeClient, JudgeReply, run_sync
from flip_plugin.metrics import f1_score, get_similarity, normalize_answer
from flip_plugin.prompts import PromptSet
from flip_plugin.ranking import RankResult, rank_by_scores
from flip_plugin.records import JudgeCallWriter, read_calls
from flip_plugin.result import FlipResult
from flip_plugin.reward import FlipReward
from flip_plugin.target import NoTarget, Target, find_target, target_from_query

__all__ = [
    "FlipResult",
    "FlipReward",
    "JudgeCallWriter",
    "JudgeClient",
    "JudgeReply",
    "ListwiseJudge",
    "NoTarget",
    "PairwiseJudge",
    "PointwiseJudge",
    "PromptSet",
    "RankResult",
    "Target",
    "echo_share",
    "f1_score",
    "find_target",
    "get_similarity",
    "normalize_answer",
    "rank_by_scores",
    "read_calls",
    "run_sync",
    "strip_echo",
    "target_from_query",
]
