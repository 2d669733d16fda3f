"""``rm:HF_ID``: a reward model as a metric, a sequence classifier with one output, through transformers."""

from __future__ import annotations

import gc
from types import TracebackType
from typing import Any

from flip_plugin.errors import CommandError
from flip_plugin.evals.records.items import EvalItem, Value
from flip_plugin.judge.event_loop import in_worker
from flip_plugin.prompts.target import normalize_messages
from flip_plugin.text.reasoning import answer_of


class RewardModelMetric:
    """The logit of (prompt, response) in the model's chat template, larger is better. A context manager.

    On a GPU where there is one, in the weights' own dtype. Candidates that do not fit into the model's window
    have no value. Raises `CommandError` for a model that is no such classifier.
    """

    width = 1

    def __init__(self, model: str) -> None:
        self.name = model
        self._model: Any = None
        self._tokenizer: Any = None

    def __enter__(self) -> RewardModelMetric:
        import torch
        from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

        try:
            config = AutoConfig.from_pretrained(self.name)
            if config.num_labels != 1:
                raise CommandError(f"rm:{self.name} has {config.num_labels} outputs: a reward model has one")
            model, loading = AutoModelForSequenceClassification.from_pretrained(
                self.name, dtype="auto", output_loading_info=True
            )
            tokenizer: Any = AutoTokenizer.from_pretrained(self.name)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise error if isinstance(error, CommandError) else CommandError(f"rm:{self.name}: {reason}") from error
        if loading["missing_keys"]:
            new = ", ".join(sorted(loading["missing_keys"])[:3])
            raise CommandError(f"rm:{self.name} is no reward model: its files lack {new}")
        if tokenizer.chat_template is None:
            raise CommandError(f"rm:{self.name} has no chat template")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        model.config.pad_token_id = tokenizer.pad_token_id
        self._tokenizer = tokenizer
        self._model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        self._window = getattr(config, "max_position_embeddings", None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        import torch

        self._model = None
        gc.collect()
        torch.cuda.empty_cache()  # the next judge's engine wants it; does nothing without a GPU

    async def score(self, item: EvalItem) -> list[Value]:
        """One logit a response."""
        return await in_worker(self._score, item)

    def _score(self, item: EvalItem) -> list[Value]:
        import torch

        turns = [{"role": "user", "content": item.prompt}] if isinstance(item.prompt, str) else item.prompt
        asked = normalize_messages(turns)
        values: list[Value] = [(None, "longer than the reward model's window")] * len(item.responses)
        fitting: list[tuple[int, list[int]]] = []
        for index, response in enumerate(item.responses):
            conversation = [*asked, {"role": "assistant", "content": answer_of(response)}]
            ids = self._tokenizer.apply_chat_template(conversation, tokenize=True, return_dict=False)
            if self._window is None or len(ids) <= self._window:
                fitting.append((index, ids))
        if fitting:
            batch = self._tokenizer.pad(
                {"input_ids": [ids for _, ids in fitting]}, padding_side="right", return_tensors="pt"
            ).to(self._model.device)
            with torch.inference_mode():
                logits = self._model(**batch).logits.float().squeeze(-1).tolist()
            for (index, _), logit in zip(fitting, logits, strict=True):
                values[index] = (logit, None)
        return values
