"""``rm:``: a real sequence classifier with one output, made here; batches give what single responses give."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from flip_plugin.errors import CommandError
from flip_plugin.evals.data.candidate_metrics import open_metric
from flip_plugin.evals.records.items import EvalItem

JUDGE = Path(__file__).parents[4] / "datasets_prep" / "tiny_world" / "models" / "judge"


def make_classifier(folder, labels):
    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForSequenceClassification

    torch.manual_seed(0)
    tokenizer: Any = AutoTokenizer.from_pretrained(JUDGE)
    shape: dict[str, Any] = {
        "num_labels": labels,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "head_dim": 16,
    }
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id,
        **shape,
    )
    Qwen3ForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.mark.slow
def test_logits_of_a_batch_and_of_one(tmp_path):
    make_classifier(tmp_path, 1)
    responses = ["Dear friend.", "A poem about honey bees for old sailors, with a lantern.", "word " * 400]
    item = EvalItem("1", "Write a letter.", responses)

    async def scored():
        with open_metric(f"rm:{tmp_path}") as metric:
            together = await metric.score(item)
            alone = [(await metric.score(EvalItem("1", item.prompt, [one])))[0] for one in responses]
        return together, alone

    together, alone = asyncio.run(scored())
    assert [value for value, _ in together[:2]] == pytest.approx([value for value, _ in alone[:2]], abs=1e-5)
    assert together[0][0] != together[1][0]
    assert together[2] == (None, "longer than the reward model's window")


@pytest.mark.slow
def test_what_is_no_reward_model_is_refused(tmp_path):
    make_classifier(tmp_path, 3)
    with pytest.raises(CommandError, match="has 3 outputs"), open_metric(f"rm:{tmp_path}"):
        pass
    with pytest.raises(CommandError, match=r"is no reward model|has 2 outputs"), open_metric(f"rm:{JUDGE}"):
        pass
