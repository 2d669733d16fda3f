#!/usr/bin/env bash
# Best of N: a policy's candidates, a pick by each method, and the picks on the benchmark's own metric.
#   bash scripts/eval/best_of_n.sh [any flag of flip eval best_of_n]           --cost_only says what it would cost
# BENCHMARKS names some of the profile's. Candidates are sampled once, and kept with the run.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/eval.sh"
for benchmark in $BENCHMARKS; do
    flags=("${CANDIDATES[@]}")
    case "$benchmark" in
        prompts) flags+=(--data "$PROMPTS" --metric datasets_prep.tiny_world.language.grammar:constraints_satisfied) ;;
        alpaca_eval) flags+=(--metric "rm:$REWARD_MODEL") ;;
        human_interest) flags+=(--data "$HUMAN_INTEREST" --metric "rm:$REWARD_MODEL") ;;
    esac
    flip_eval best_of_n --benchmark "$benchmark" --policy "$POLICY" "${flags[@]}" "${JUDGING[@]}" \
        --output "$OUTPUT_DIR/best_of_n_$benchmark" "$@"
done
