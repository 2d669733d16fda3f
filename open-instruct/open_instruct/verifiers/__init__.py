"""Verifiable rewards under Open Instruct's names: `gsm8k`, `math`, `ifeval`, `string_f1`.

The checking is done by kept libraries (math-verify, lm-eval's IFEval), in processes of their own
(`flip_plugin.answers`), because a response is hostile input. Importing this package loads none of them.
"""

from open_instruct.verifiers.gsm8k import GSM8KVerifier
from open_instruct.verifiers.ifeval import IFEvalVerifier
from open_instruct.verifiers.mathematics import MathVerifier
from open_instruct.verifiers.string_f1 import F1Verifier

__all__ = ["F1Verifier", "GSM8KVerifier", "IFEvalVerifier", "MathVerifier"]
