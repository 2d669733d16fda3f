"""Responses -> scores: FLIP, and the LLM judges that it is compared with."""
