"""IFBench as a task of lm-eval: `ifbench.yaml` and what it calls."""
