# The tiny world: evaluation sets in the schemas of the real ones, and three judges that ship with the repository,
# trained the same way in three sizes. No downloads. They were taught to answer in JSON, so none is enforced.
WORLD="$ROOT/datasets_prep/tiny_world/models"
if [[ ${#JUDGE_LIST[@]} -eq 0 ]]; then
    for size in small medium large; do JUDGE_LIST+=("$size=vllm:$WORLD/judges/$size"); done
fi
# Every attack on 48 of the 80 pairs, in one run unless SEEDS says more: runs narrow an interval less than pairs do.
ROBUSTNESS=(--limit 48)
[[ -n "${SEEDS:-}" ]] || ROBUSTNESS+=(--seeds 1)
SEEDS="${SEEDS:-1 2}"
SAMPLING=(--temperature 0.7 --max_tokens 160 --no_schema)
REWARDBENCH2="$OUTPUT_DIR/data/rewardbench2.parquet"

if [[ ! -r "$REWARDBENCH2" ]]; then
    "$PYTHON" -m datasets_prep.tiny_world.eval_sets --output "$OUTPUT_DIR/data" --seed 1 --num_items 20 \
        --num_prompts 32
fi

POLICY="${POLICY:-vllm:$WORLD/policy}"
BENCHMARKS="${BENCHMARKS:-prompts}"
PROMPTS="$OUTPUT_DIR/data/best_of_n.jsonl"
CANDIDATES=(--num_prompts 32 --num_candidates 16 --policy_max_tokens 64)

prepare_checkpoints() {  # the policy as it is, and after a short training under each reward
    read -ra CHECKPOINT_LIST <<<"${CHECKPOINTS:-}"
    if [[ ${#CHECKPOINT_LIST[@]} -gt 0 ]]; then return; fi
    CHECKPOINT_LIST=("base=$WORLD/policy")
    local reward
    for reward in flip llmjudge; do
        if [[ ! -d "$OUTPUT_DIR/grpo_$reward/checkpoint" ]]; then
            PROFILE=tiny OUTPUT_DIR="$OUTPUT_DIR/grpo_$reward" DATASETS="" MODEL_NAME_OR_PATH="" JUDGE_MODEL="" \
                bash "$ROOT/scripts/train/grpo_$reward.sh" --total_episodes 5120
        fi
        CHECKPOINT_LIST+=("$reward=$OUTPUT_DIR/grpo_$reward/checkpoint")
    done
}
TASKS=(--tasks tiny_world --include_path "$ROOT/datasets_prep/tiny_world/lm_eval_task" --model_args max_model_len=256)
# Parameters, which the names of these judges do not say.
SIZES=(--sizes small=0.28M medium=0.56M large=1.05M)
