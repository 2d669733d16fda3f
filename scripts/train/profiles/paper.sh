# The published recipe (arXiv 2602.13551 and its code), value by value: 3 nodes of 8 GPUs, 8 for
# learners and 16 for policy engines. There the judge ran on a host of its own: name yours in
# HOSTED_VLLM_API_BASE, or this run serves it on a 25th GPU.
# --dry_run prints every value that is not the published one, with the reason. It was stopped by hand.
MODEL_NAME_OR_PATH="${MODEL_NAME_OR_PATH:-allenai/Olmo-3-7B-Think-DPO}"
JUDGE_MODEL="${JUDGE_MODEL:-hosted_vllm/Qwen/Qwen3-4B}"
if [[ ${#DATA[@]} -eq 0 ]]; then DATA=("$PUBLISHED_ROWS" 1.0); fi

FLAGS=(
    --dataset_mixer_list_splits train
    --dataset_mixer_eval_list "${DATA[0]}" 8  # rows of the training set, as published
    --dataset_mixer_eval_list_splits train
    --chat_template_name olmo_thinker
    --max_prompt_token_length 2048
    --response_length 16384
    --pack_length 18432
    --stop_strings "</answer>"
    --mask_truncated_completions True
    --non_stop_penalty False
    --temperature 1.0
    --num_unique_prompts_rollout 24
    --num_samples_per_prompt_rollout 8
    --async_steps 1
    --inflight_updates False
    --total_episodes 10000000
    --num_epochs 1
    --num_mini_batches 1
    --per_device_train_batch_size 1
    --learning_rate 1e-6
    --lr_scheduler_type constant
    --beta 0.0
    --kl_estimator 2
    --clip_higher 0.272
    --truncated_importance_sampling_ratio_cap 2.0
    --advantage_normalization_type standard
    --apply_verifiable_reward True
    --verification_reward 10.0
    --llm_judge_max_tokens 2048
    --llm_judge_max_context_length 25000
    --llm_judge_temperature 1.0
    --llm_judge_timeout 3600
    --llm_judge_structured_output False  # nor did it say anything about thinking: the template's default
    --llm_judge_thinking True
    --deepspeed_stage 3
    --deepspeed_zpg 8
    --gradient_checkpointing True
    --num_learners_per_node 8
    --vllm_num_engines 16
    --vllm_tensor_parallel_size 1
    --vllm_enable_prefix_caching True
    --backend_timeout 3600
    --local_eval_every 50
    --eval_on_step_0 True
    --save_freq 50
    --checkpoint_state_freq 50
    --keep_last_n_checkpoints -1
    --seed 1
    --compare_with_published True  # these two are for --dry_run alone
    --dry_run_nodes 8 8 8
)
