# Sourced by grpo_flip.sh and grpo_llmjudge.sh, which set JUDGE_TYPE (flip or quality).
#
# From the environment, all optional:
#   PROFILE             tiny (default without a GPU), single_gpu (default with one), paper
#   MODEL_NAME_OR_PATH  the policy: a Hugging Face id or a folder
#   DATASETS            pairs of data set and share or count: "rows.jsonl 1.0 other/rows 512"
#   JUDGE_MODEL         LiteLLM name; hosted_vllm/... is served by the run itself,
#                       unless HOSTED_VLLM_API_BASE=http://127.0.0.1:8000/v1 or so is set
#   OUTPUT_DIR          everything that the run writes (default: output/PROFILE_JUDGETYPE)
# Arguments are flags of open_instruct.grpo_fast, and win over the profile's;
# --dry_run prints what would run where, and loads nothing.

source "$(dirname "${BASH_SOURCE[0]}")/../start.sh" train tiny single_gpu paper
OUTPUT_DIR="${OUTPUT_DIR:-output/${PROFILE}_$JUDGE_TYPE}"
read -ra DATA <<<"${DATASETS:-}"
PUBLISHED_ROWS=yikeee/rlvr_general_chat  # 12,000 English WildChat prompts, in two taggings
if [[ "$JUDGE_TYPE" == flip ]]; then PUBLISHED_ROWS=yikeee/rlvr_general_chat_flip; fi

# Sets FLAGS, and MODEL_NAME_OR_PATH, DATA and JUDGE_MODEL where they are not given.
source "$ROOT/scripts/train/profiles/$PROFILE.sh"

# exec: an interrupt, or a scheduler's signal, reaches the trainer itself.
exec "$PYTHON" -m open_instruct.grpo_fast \
    --exp_name "${PROFILE}_$JUDGE_TYPE" \
    --output_dir "$OUTPUT_DIR" \
    --model_name_or_path "$MODEL_NAME_OR_PATH" \
    --llm_judge_model "$JUDGE_MODEL" \
    --dataset_mixer_list "${DATA[@]}" \
    "${FLAGS[@]}" "$@"
