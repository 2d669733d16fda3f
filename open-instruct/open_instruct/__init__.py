"""GRPO with a judge's reward: a compact Open Instruct. Start at `open_instruct.grpo_fast`."""
