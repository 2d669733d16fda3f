"""The tiny world's rule as a verifier: reported next to a judge's reward, never used as one."""

from datasets_prep.tiny_world.language import grammar


def constraints_satisfied(prediction: str, label: str) -> float:
    """Share of the instruction's attributes that the response satisfies, judged by rule alone (0..1).

    `label` is the instruction's exact text. A foreign label scores 0.
    """
    return grammar.constraints_satisfied(label, prediction)
