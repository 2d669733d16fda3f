"""The tiny language: its words, its instructions and responses, and what satisfies them."""
