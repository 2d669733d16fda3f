#!/usr/bin/env bash
# Robustness (the paper's Figure 6): bad responses under attack, by each method, with and without echo control.
#   bash scripts/eval/robustness.sh [any flag of flip eval robustness]         --plan says what it would cost
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/eval.sh"
flip_eval robustness --data "$REWARDBENCH2" "${JUDGING[@]}" "${ROBUSTNESS[@]}" \
    --output "$OUTPUT_DIR/robustness" "$@"
