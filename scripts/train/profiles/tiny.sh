# The embedded tiny world: models of a few million parameters that ship with the repository,
# prompts in a small language, and the whole path (Ray, vLLM, DeepSpeed, LiteLLM) for real.
# Minutes on two cores, no downloads. Whether a response does what its instruction asks can be
# computed here, so that is reported next to the judge's reward, and never rewarded.
WORLD="$ROOT/datasets_prep/tiny_world/models"
MODEL_NAME_OR_PATH="${MODEL_NAME_OR_PATH:-$WORLD/policy}"
JUDGE_MODEL="${JUDGE_MODEL:-hosted_vllm/$WORLD/judge}"

make_rows() {  # split, number of prompts
    "$PYTHON" -m datasets_prep.tiny_world.rows --judge_type "$JUDGE_TYPE" --split "$1" --num_prompts "$2" \
        --seed 1 --output "$OUTPUT_DIR/data/$1.jsonl"
}
mkdir -p "$OUTPUT_DIR/data"
if [[ ${#DATA[@]} -eq 0 ]]; then
    make_rows train 2048
    DATA=("$OUTPUT_DIR/data/train.jsonl" 1.0)
fi
make_rows eval 64  # held-out instructions

FLAGS=(
    --dataset_mixer_eval_list "$OUTPUT_DIR/data/eval.jsonl" 1.0
    --report_verifiers constraints_satisfied
    --num_unique_prompts_rollout 16
    --num_samples_per_prompt_rollout 8
    --total_episodes 10240  # 80 steps x 128
    --async_steps 1
    --max_prompt_token_length 64
    --response_length 64
    --pack_length 128  # one sample a row, mostly: attention costs the square of it, and needs no mask then
    --per_device_train_batch_size 16  # rows of like length, and what they need fits the cache
    --learner_threads 1  # the engines need the other core
    --learning_rate 5e-4
    --lr_scheduler_type constant
    --beta 0.0
    --clip_higher 0.272
    --truncated_importance_sampling_ratio_cap 2.0
    --advantage_normalization_type standard
    --deepspeed_stage 0
    --num_learners_per_node 1
    --vllm_num_engines 1
    --llm_judge_num_engines 1
    --llm_judge_max_tokens 96
    --llm_judge_max_context_length 1024
    --llm_judge_temperature 0
    --llm_judge_structured_output False  # it was taught to answer in JSON, and the grammar costs a tenth of a step
    --local_eval_every 10
    --eval_on_step_0 True
    --checkpoint_state_freq 20
    --seed 1
    --with_tracking False
)
if [[ "$KIND" == gpu ]]; then  # one GPU is plenty for all three
    FLAGS+=(--single_gpu_mode True --vllm_gpu_memory_utilization 0.2 --llm_judge_gpu_memory_utilization 0.2)
fi
