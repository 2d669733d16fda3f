"""From judgements to numbers: scores, intervals, rows of results, paired differences."""
