# The paper's setting (arXiv 2602.13551): RewardBench 2, instruct models of five families up to 12B, temperature 0.7,
# 512 tokens a reply, five runs. Its thirteen models are not listed in public sources; these are the families'
# published instruct models of that size, thirteen of them. Each is loaded in turn: 80 GB hold any; with less
# memory, name fewer in JUDGES. Llama and Gemma ask for their licences to be accepted first (HF_TOKEN).
if [[ ${#JUDGE_LIST[@]} -eq 0 ]]; then JUDGE_LIST=(
    OLMo2-1B=vllm:allenai/OLMo-2-0425-1B-Instruct
    OLMo2-7B=vllm:allenai/OLMo-2-1124-7B-Instruct
    Llama3-1B=vllm:meta-llama/Llama-3.2-1B-Instruct
    Llama3-3B=vllm:meta-llama/Llama-3.2-3B-Instruct
    Llama3-8B=vllm:meta-llama/Llama-3.1-8B-Instruct
    Qwen3-0.6B=vllm:Qwen/Qwen3-0.6B
    Qwen3-1.7B=vllm:Qwen/Qwen3-1.7B
    Qwen3-4B=vllm:Qwen/Qwen3-4B
    Qwen3-8B=vllm:Qwen/Qwen3-8B
    Gemma3-1B=vllm:google/gemma-3-1b-it
    Gemma3-4B=vllm:google/gemma-3-4b-it
    Gemma3-12B=vllm:google/gemma-3-12b-it
    Mistral-7B=vllm:mistralai/Mistral-7B-Instruct-v0.3
); fi
SEEDS="${SEEDS:-1 2 3 4 5}"
SAMPLING=(--temperature 0.7 --max_tokens 512)
REWARDBENCH2=allenai/reward-bench-2
ROBUSTNESS=()  # every item, every run

# Best of N: 300 instructions of each, 16 candidates. human_interest is a file to be fetched by hand: HUMAN_INTEREST=FILE.
POLICY="${POLICY:-vllm:allenai/Llama-3.1-Tulu-3-8B}"
HUMAN_INTEREST="${HUMAN_INTEREST:-}"
BENCHMARKS="${BENCHMARKS:-ifeval math alpaca_eval${HUMAN_INTEREST:+ human_interest}}"
REWARD_MODEL="${REWARD_MODEL:-Skywork/Skywork-Reward-Llama-3.1-8B-v0.2}"
CANDIDATES=(--num_prompts 300 --num_candidates 16)

prepare_checkpoints() {  # the two policies of PROFILE=paper bash scripts/train/{grpo_flip,grpo_llmjudge}.sh
    read -ra CHECKPOINT_LIST <<<"${CHECKPOINTS:-base=allenai/Olmo-3-7B-Think-DPO \
        flip=output/paper_flip/checkpoint llmjudge=output/paper_quality/checkpoint}"
}
# As long as in training: the tasks' own limits (IFEval's is 1280 tokens) would end inside a thought.
TASKS=(--model_args max_model_len=18432 "think_end_token=</think>" --gen_kwargs max_gen_toks=16384)
SIZES=()
