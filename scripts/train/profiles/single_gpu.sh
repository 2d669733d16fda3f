# Learner, policy engine and judge on one 80 GB card. What each takes, roughly:
#   policy engine  24 GB (0.3)   1.7B weights 3.4, the rest KV cache for 128 samples
#   judge          16 GB (0.2)   4B weights 8, KV cache 5 (34,000 tokens)
#   learner        40 GB         fp32 master weights and Adam 21, bf16 weights and gradients 7,
#                                logits of 1024 positions below 2 (--logprob_chunk_size), activations
# On 40 GB or 48 GB: JUDGE_MODEL=hosted_vllm/Qwen/Qwen3-1.7B, MODEL_NAME_OR_PATH=Qwen/Qwen3-0.6B.
MODEL_NAME_OR_PATH="${MODEL_NAME_OR_PATH:-Qwen/Qwen3-1.7B}"
JUDGE_MODEL="${JUDGE_MODEL:-hosted_vllm/Qwen/Qwen3-4B}"
if [[ ${#DATA[@]} -eq 0 ]]; then DATA=("$PUBLISHED_ROWS" 1.0); fi

FLAGS=(
    --dataset_mixer_list_splits train
    --dataset_mixer_eval_list "${DATA[0]}" 8
    --dataset_mixer_eval_list_splits train
    --single_gpu_mode True
    --vllm_gpu_memory_utilization 0.3
    --llm_judge_gpu_memory_utilization 0.2
    --gradient_checkpointing True
    --deepspeed_stage 2
    --num_learners_per_node 1
    --vllm_num_engines 1
    --vllm_enable_prefix_caching True
    --num_unique_prompts_rollout 16
    --num_samples_per_prompt_rollout 8
    --total_episodes 64000  # 500 steps x 128
    --async_steps 1
    --max_prompt_token_length 1024
    --response_length 2048
    --pack_length 3072
    --mask_truncated_completions True
    --learning_rate 1e-6
    --lr_scheduler_type constant
    --beta 0.0
    --clip_higher 0.272
    --truncated_importance_sampling_ratio_cap 2.0
    --advantage_normalization_type standard
    --llm_judge_num_engines 1
    --llm_judge_max_tokens 1024
    --llm_judge_max_context_length 8192
    --llm_judge_temperature 0
    --llm_judge_timeout 600
    --local_eval_every 50
    --save_freq 100
    --seed 1
)
# Qwen3 thinks by default, longer than 2048 tokens allow.
if [[ "$MODEL_NAME_OR_PATH" == *Qwen3* ]]; then FLAGS+=(--chat_template_name chatml_no_think); fi
