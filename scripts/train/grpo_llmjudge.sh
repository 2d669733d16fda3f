#!/usr/bin/env bash
# The baseline: the same run with a pointwise LLM judge. Only the rows' tag differs
# (general-quality instead of general-flip).
set -euo pipefail
JUDGE_TYPE=quality
source "$(dirname "${BASH_SOURCE[0]}")/grpo.sh"
