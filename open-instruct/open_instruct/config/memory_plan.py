"""What a GPU's memory goes to, computed from a model's config.json before anything loads.

Bytes, for decoder-only models with gated MLPs (Llama, Qwen, OLMo, Mistral), which is what is trained here;
experts of a mixture count by their number. Activations depend on the kernels and are only bounded from below.
Sources: ZeRO (Rajbhandari et al., arXiv 1910.02054) for what is split over how many learners; the formula of
the KV cache is that of grouped-query attention (Ainslie et al., arXiv 2305.13245).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GIB = 2**30


def takes_turns(args: Any, *, on_cpu: bool) -> bool:
    """True where policy engine and judge sleep while the learner trains: one GPU, and nothing runs ahead."""
    return bool(args.single_gpu_mode) and args.async_steps == 0 and not on_cpu


def parameter_count(config: Mapping[str, Any]) -> int:
    """Parameters of the model that `config` (config.json) describes; norms are left out (below 0.01 %)."""
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    kv_heads = config.get("num_key_value_heads") or heads
    attention = hidden * head * (2 * heads + 2 * kv_heads)
    experts = config.get("num_experts") or config.get("num_local_experts") or 1
    width = config.get("moe_intermediate_size", config["intermediate_size"]) if experts > 1 else None
    mlp = 3 * hidden * (width or config["intermediate_size"]) * experts + (hidden * experts if experts > 1 else 0)
    heads_of_vocabulary = 1 if config.get("tie_word_embeddings") else 2
    return layers * (attention + mlp) + heads_of_vocabulary * hidden * config["vocab_size"]


def kv_bytes_per_token(config: Mapping[str, Any], bytes_per_value: int = 2) -> int:
    """Keys and values of one token: 2 x layers x KV heads x head size x bytes.

    >>> kv_bytes_per_token({"hidden_size": 2560, "num_hidden_layers": 36, "num_attention_heads": 32,
    ...     "num_key_value_heads": 8, "head_dim": 128}) == 144 * 2**10  # Qwen3-4B in bfloat16
    True
    """
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or config["hidden_size"] // heads
    kv_heads = config.get("num_key_value_heads") or heads
    return 2 * config["num_hidden_layers"] * kv_heads * head * bytes_per_value


@dataclass(frozen=True)
class LearnerMemory:
    """Bytes on one learner's GPU between steps, and on top of that within one."""

    weights: int
    gradients: int
    optimizer: int
    reference: int
    logits: int
    activations: int

    @property
    def total(self) -> int:
        """All of it, within a step."""
        return self.weights + self.gradients + self.optimizer + self.reference + self.logits + self.activations


def learner_memory(
    config: Mapping[str, Any],
    *,
    zero_stage: int,
    world_size: int,
    offload_optimizer: bool,
    offload_param: bool,
    reference: bool,
    tokens: int,
    logits_tokens: int,
    gradient_checkpointing: bool,
) -> LearnerMemory:
    """A bfloat16 learner: 2 bytes a weight and gradient, 12 for AdamW (float32 weight and two moments).

    `tokens`: of one forward pass (packed rows x their length); `logits_tokens`: positions whose logits are held
    at once. Stage 1 splits the optimiser over the learners, 2 the gradients, 3 the weights. Activations: with
    checkpointing a hidden state for each layer and one layer in full (34 bytes x tokens x hidden: Korthikanti
    et al., arXiv 2205.05198, without the attention matrix); without it, every layer in full.
    """
    count, hidden, layers = parameter_count(config), config["hidden_size"], config["num_hidden_layers"]

    def share(stage: int) -> int:
        return world_size if zero_stage >= stage else 1

    full_layer = 34 * tokens * hidden
    return LearnerMemory(
        weights=0 if offload_param else 2 * count // share(3),
        gradients=2 * count // share(2),
        optimizer=0 if offload_optimizer else 12 * count // share(1),
        reference=2 * count if reference else 0,
        logits=(2 + 4 + 4) * logits_tokens * config["vocab_size"],  # bfloat16, float32, and the gradient of that
        activations=2 * tokens * hidden * layers + full_layer if gradient_checkpointing else full_layer * layers,
    )


def describe_one_gpu(
    args: Any, policy: Mapping[str, Any], judge: Mapping[str, Any] | None, gpu_bytes: int | None = None
) -> str:
    """The memory split of --single_gpu_mode, a line for each taker; `judge` None: it is served elsewhere.

    `gpu_bytes`: the card's memory; without it shares stay shares.
    """
    tokens = args.per_device_train_batch_size * args.pack_length
    learner = learner_memory(
        policy,
        zero_stage=args.deepspeed_stage,
        world_size=1,
        offload_optimizer=args.deepspeed_offload_optimizer,
        offload_param=args.deepspeed_offload_param,
        reference=bool(args.beta) and args.load_ref_policy,
        tokens=tokens,
        logits_tokens=min(args.logprob_chunk_size or tokens, tokens),
        gradient_checkpointing=args.gradient_checkpointing,
    )
    rows = [
        (
            "learner",
            _gib(learner.total),
            f"weights {_gib(learner.weights)}, gradients {_gib(learner.gradients)}, "
            f"optimiser {_gib(learner.optimizer)}, "
            f"logits {_gib(learner.logits)}, activations from {_gib(learner.activations)}"
            + (f", reference {_gib(learner.reference)}" if learner.reference else ""),
        ),
        ("policy engine", *_server(policy, args.vllm_gpu_memory_utilization, gpu_bytes)),
    ]
    if judge is not None:
        rows.append(("judge engine", *_server(judge, args.llm_judge_gpu_memory_utilization, gpu_bytes)))
    card = f" ({_gib(gpu_bytes)})" if gpu_bytes else ""
    lines = [f"  {name:<13}  {size:>9}  {of}" for name, size, of in rows]
    if takes_turns(args, on_cpu=False):
        lines.append("  --async_steps 0: engine and judge sleep while the learner trains, and leave it their memory")
    return "\n".join([f"Memory on the one GPU{card}, about:", *lines])


def one_gpu_report(args: Any, *, own_judge: bool, gpu_bytes: int | None, download: bool) -> str:
    """`describe_one_gpu` of the models that the flags name; a sentence where a config.json is not at hand."""
    from transformers import AutoConfig

    def shape(model: str, revision: str | None = None) -> dict[str, Any]:
        config = AutoConfig.from_pretrained(model, revision=revision, local_files_only=not download)
        return config.get_text_config().to_dict()

    try:
        policy = shape(args.model_name_or_path, args.model_revision)
        return describe_one_gpu(args, policy, shape(args.judge_model_id) if own_judge else None, gpu_bytes)
    except (OSError, ValueError, KeyError) as error:
        first = (str(error).splitlines() or [""])[0]
        return f"Memory on the one GPU: not computed, as a model's config.json is not at hand or unusual ({first})."


def _server(config: Mapping[str, Any], share: float, gpu_bytes: int | None) -> tuple[str, str]:
    weights, per_token = 2 * parameter_count(config), kv_bytes_per_token(config)
    if gpu_bytes is None:
        return f"{share:.0%}", f"weights {_gib(weights)}, KV cache {per_token / 2**10:.0f} KiB a token"
    left = share * gpu_bytes - weights
    room = f"room for {int(left / per_token):,} tokens" if left > 0 else "NO ROOM: raise its share"
    kv = f"KV cache {_gib(max(left, 0))} at {per_token / 2**10:.0f} KiB a token ({room})"
    return _gib(share * gpu_bytes), f"weights {_gib(weights)}, {kv}"


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
