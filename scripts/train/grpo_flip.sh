#!/usr/bin/env bash
# GRPO with the FLIP reward: bash scripts/train/grpo_flip.sh [any flag of open_instruct.grpo_fast]
# What may be set from outside, and the three profiles, are described in grpo.sh.
set -euo pipefail
JUDGE_TYPE=flip
source "$(dirname "${BASH_SOURCE[0]}")/grpo.sh"
