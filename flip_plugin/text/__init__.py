"""Text alone, without a judge: similarity, echo, words in common, cutting, where thinking ends."""
