"""Evaluations of judge models as rewards, by each of the four methods.

A folder a stage, in the order in which they are used::

    data      rows of data sets, candidates of a policy, metrics of candidates     -> `EvalItem`
    judges    methods x judges x seeds over the items                              -> `Judgement`, a line of a file each
    stats     credit, accuracy, intervals, paired differences                      -> `Result`, in results.json
    tasks     the evaluations, each a command and a file; `attacks` and `lm_eval` are what two of them are made of
    report    finished runs side by side, as a page and files

`records` has the three kinds of records and the folder that keeps them.

An evaluation (``rewardbench2``, ``best_of_n``, ``robustness``, ...) turns a data set into
`EvalItem`s, has the engine judge them, and turns the judgements into `Result`s, the numbers
of every table and plot. What could not be judged is missing: it is never a low score, and its
share stands beside every number.
"""
