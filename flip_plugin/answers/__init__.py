"""Answers and instructions checked by kept libraries (math-verify, lm-eval's IFEval), in processes with limits.

The verifiers of `open_instruct` and the metrics of ``flip eval`` share them. Whoever imports this package loads none of
those libraries: they live in the worker processes (`worker_pool.shared_pool`).
"""
