"""Flags of Open Instruct that this trainer does not have, and what to use instead.

A flag of this list that is switched off (``--send_slack_alerts False``) asks for nothing, so it is passed
over; any other use of it ends the program with its sentence.
"""

from __future__ import annotations

_EVAL_JOBS = (
    "starts evaluation jobs on Ai2's own cluster. Leave it out; evaluate during the run with "
    "--dataset_mixer_eval_list and --local_eval_every, or load OUTPUT_DIR/checkpoint in any evaluation tool."
)
_AI2_STORAGE = "copies to Ai2's own storage. Leave it out; everything is under --output_dir, to be copied as you like."
_HUB = "uploads to the Hugging Face hub. Leave it out and run `hf upload NAME OUTPUT_DIR/checkpoint` afterwards."
_CODE = "is for rewards from running code, which need a private service. Leave it out; no verifier here runs code."
_TOOLS = "is for tool use and environments, which are not offered here."
_RUBRICS = "is for evolving rubrics, which are not offered here. FLIP needs no rubric: tag rows general-flip."
_FSDP = "belongs to upstream's other trainer (grpo.py). Here --deepspeed_stage shards the learners."
_CACHE = "is for a cache of tokenised rows. There is none here: rows are tokenised at each start, in seconds."

#: Name of a flag -> what to do instead; the sentence follows the flag's name.
REFUSED: dict[str, str] = {
    **dict.fromkeys(
        [
            "try_launch_beaker_eval_jobs_on_weka",
            "oe_eval_tasks",
            "oe_eval_max_length",
            "oe_eval_beaker_image",
            "oe_eval_gpu_multiplier",
            "eval_priority",
            "eval_workspace",
        ],
        _EVAL_JOBS,
    ),
    **dict.fromkeys(["gs_bucket_path", "gs_checkpoint_state_dir", "try_auto_save_to_beaker"], _AI2_STORAGE),
    **dict.fromkeys(["push_to_hub", "hf_entity", "hf_repo_id", "hf_repo_revision", "hf_repo_url"], _HUB),
    **dict.fromkeys(
        ["code_api_url", "code_max_execution_time", "code_pass_rate_reward_threshold", "code_apply_perf_penalty"], _CODE
    ),
    **dict.fromkeys(
        [
            "tools",
            "tool_call_names",
            "tool_configs",
            "tool_parser_type",
            "max_steps",
            "max_tool_calls",
            "per_turn_max_tokens",
            "only_reward_good_outputs",
            "pass_tools_to_chat_template",
            "pool_size",
            "mask_tool_use",
            "reward_aggregator",
            "code_tool_api_endpoint",
            "search_api_endpoint",
            "number_documents_to_search",
        ],
        _TOOLS,
    ),
    **dict.fromkeys(["apply_evolving_rubric_reward", "max_active_rubrics", "cache_evolving_rubric_data_dir"], _RUBRICS),
    **dict.fromkeys(["fsdp_shard_degree", "fsdp_num_replicas"], _FSDP),
    **dict.fromkeys(
        [
            "cache_dataset_only",
            "dataset_cache_mode",
            "dataset_local_cache_dir",
            "dataset_config_hash",
            "dataset_config_eval_hash",
            "dataset_skip_cache",
        ],
        _CACHE,
    ),
    "send_slack_alerts": "posts to Slack. Leave it out; Weights & Biases (--with_tracking True) can send alerts.",
    "trust_remote_code": "would run code from the hub. Convert such a model to one that transformers knows.",
    "num_nodes": "is not needed. Give the learners of each node: --num_learners_per_node 8 8 for two nodes.",
    "sequence_parallel_size": "is not offered. Give longer packs more memory: --gradient_checkpointing True, "
    "--deepspeed_stage 3 and a smaller --logprob_chunk_size.",
    "gather_whole_model": "is not needed: parameters are gathered one at a time.",
    "vllm_sync_backend": "is not needed: NCCL between GPUs, Ray's object store elsewhere.",
    "enable_queue_dashboard": "is not offered. Stage times are in metrics.jsonl and report.html.",
    "queue_dashboard_port": "is not offered. Stage times are in metrics.jsonl and report.html.",
    "deepspeed_checkpoint_load_universal": "is not offered: continue with as many learners as the state was saved by.",
    "system_prompt_override_file": "is not offered: write the system prompt into the rows' messages.",
    "max_length_verifier_max_length": "belongs to a verifier that is not here. See --overlong_buffer_length.",
    "use_slow_tokenizer": "is not offered: transformers 5 has fast tokenizers alone.",
    "load_in_4bit": "is not offered. --use_peft True trains adapters on unquantised weights.",
    "load_in_8bit": "is not offered. --use_peft True trains adapters on unquantised weights.",
    "max_token_length": "has been gone from Open Instruct since 2025. Use --pack_length.",
    "resume_from_checkpoint": "is not needed: the same command continues a run from OUTPUT_DIR/state.",
}
_OFF = frozenset({"false", "none", "0", "no", "off"})


def split_refused(argv: list[str]) -> tuple[list[str], list[str]]:
    """Command line -> (the rest, sentences about refused flags that are in use)."""
    rest: list[str] = []
    sentences: list[str] = []
    position = 0
    while position < len(argv):
        word = argv[position]
        end = position + 1
        while end < len(argv) and not argv[end].startswith("--"):
            end += 1
        name, equals, inline = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if not word.startswith("--") or name not in REFUSED:
            rest += argv[position:end]
        else:
            values = [inline] if equals else argv[position + 1 : end]
            if not (len(values) == 1 and values[0].lower() in _OFF):
                sentences.append(f"--{name} {REFUSED[name]}")
        position = end
    return rest, sentences
