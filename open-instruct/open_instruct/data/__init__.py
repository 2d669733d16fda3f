"""Rows -> tokenised prompts, and the types that the stages hand on."""
