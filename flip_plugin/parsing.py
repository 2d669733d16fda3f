"""Reading judges' replies by its published name: see `flip_plugin.replies.parsing`."""

from flip_plugin.replies.parsing import (
    ParsedChoice,
    ParsedReply,
    ParsedScore,
    parse_best_index,
    parse_better,
    parse_flip_reply,
    parse_score_reply,
)
from flip_plugin.text.reasoning import after_thinking

__all__ = [
    "ParsedChoice",
    "ParsedReply",
    "ParsedScore",
    "after_thinking",
    "parse_best_index",
    "parse_better",
    "parse_flip_reply",
    "parse_score_reply",
]
