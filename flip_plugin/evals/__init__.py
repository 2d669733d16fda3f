"""Evaluations of judge models as rewards, by each of the four methods.

One direction, one file a concept::

    sources -> items -> engine (methods x judges x seeds) -> judgements.jsonl -> scoring, intervals -> results -> report

An evaluation (``rewardbench2``, ``best_of_n``, ``robustness``, ...) turns a data set into
`EvalItem`s, has the engine judge them, and turns the judgements into `Result`s, the numbers
of every table and plot. What could not be judged is missing: it is never a low score, and its
share stands beside every number.
"""
