"""Verifiers and rewards, under upstream's module name: see `open_instruct.verifiers` and `open_instruct.rewards`."""

from flip_plugin.plugins import PluginError
from open_instruct.rewards.judge_types import JudgeSpec, judge_specs
from open_instruct.rewards.judge_verifier import LMJudgeVerifier, LMJudgeVerifierConfig
from open_instruct.rewards.registry import JUDGE_GROUP, VERIFIER_GROUP, build_all_verifiers, check_verifier_names
from open_instruct.rewards.row_reward import RewardConfig, SampleReward
from open_instruct.verifiers import F1Verifier, GSM8KVerifier, IFEvalVerifier, MathVerifier
from open_instruct.verifiers.base import (
    MissingLibrary,
    UnknownVerifier,
    VerificationResult,
    VerifierConfig,
    VerifierFunction,
)

__all__ = [
    "JUDGE_GROUP",
    "VERIFIER_GROUP",
    "F1Verifier",
    "GSM8KVerifier",
    "IFEvalVerifier",
    "JudgeSpec",
    "LMJudgeVerifier",
    "LMJudgeVerifierConfig",
    "MathVerifier",
    "MissingLibrary",
    "PluginError",
    "RewardConfig",
    "SampleReward",
    "UnknownVerifier",
    "VerificationResult",
    "VerifierConfig",
    "VerifierFunction",
    "build_all_verifiers",
    "check_verifier_names",
    "judge_specs",
]
