"""FLIP: a reward from backward inference (arXiv 2602.13551).

A judge reads a response and infers the instruction that led to it; the reward is the
word-level F1 between the inferred and the real instruction. Start at `FlipReward`.
Importing this package loads neither torch, ray, vllm nor litellm.
"""

from flip_plugin.judge.call_log import JudgeCallWriter, read_calls
from flip_plugin.judge.client import JudgeClient
from flip_plugin.judge.event_loop import run_sync
from flip_plugin.judge.reply import JudgeReply
from flip_plugin.prompts.target import NoTarget, Target, find_target, target_from_query
from flip_plugin.prompts.templates import PromptSet
from flip_plugin.reward.flip import FlipReward
from flip_plugin.reward.listwise import ListwiseJudge
from flip_plugin.reward.pairwise import PairwiseJudge
from flip_plugin.reward.pointwise import PointwiseJudge
from flip_plugin.reward.ranking import RankResult, rank_by_scores
from flip_plugin.reward.result import FlipResult
from flip_plugin.text.echo import echo_share, strip_echo
from flip_plugin.text.similarity import f1_score, get_similarity, normalize_answer

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
