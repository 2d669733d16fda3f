"""Cosine of two texts' embeddings as a similarity: `get_similarity("embedding:MODEL")`.

An embedding is the mean of the model's last hidden states over a text's tokens;
a negative cosine counts as 0. MODEL is a Hugging Face model id or a folder; with
plain ``embedding`` the environment variable FLIP_EMBEDDING_MODEL says which.
FLIP_EMBEDDING_DEVICE, for example ``cuda:0``, moves the model off the CPU.

Needs the extra ``flip-plugin[embedding]`` (torch, transformers). Weights are read
from safetensors only, and code in a model's folder is never run.
"""

from __future__ import annotations

import os
import threading
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MODEL_VARIABLE = "FLIP_EMBEDDING_MODEL"
DEVICE_VARIABLE = "FLIP_EMBEDDING_DEVICE"
LONGEST = 8192  # tokens; what a model without a stated limit reads of a text

_loading = threading.Lock()


class EmbeddingSimilarity:
    """``(prediction, reference) -> float`` in 0..1. Pickles as the model's name.

    `model` is an id or a folder, None for FLIP_EMBEDDING_MODEL. The model itself is
    loaded at the first call, once a process, and the threads take turns with it.
    Raises ImportError without the extra, ValueError when no model is named or a folder holds none.
    """

    slow = True  # a forward pass: call it in a thread, not in an event loop

    def __init__(self, model: str | None = None):
        model = os.environ.get(MODEL_VARIABLE, "") if model is None else model
        if not model:
            raise ValueError(f"similarity 'embedding': set {MODEL_VARIABLE}, or name a model: embedding:ID_OR_FOLDER")
        if missing := [name for name in ("torch", "transformers") if find_spec(name) is None]:
            needed = ", ".join(missing)
            raise ImportError(f"similarity 'embedding' needs {needed}: pip install torch transformers")
        folder = Path(_expand_home(model))
        if model.startswith(("/", ".", "~")) and not folder.is_dir():
            raise ValueError(f"similarity 'embedding': there is no folder {model}")
        if folder.is_dir() and not (folder / "config.json").is_file():
            raise ValueError(f"similarity 'embedding': no model in folder {model}: config.json is missing")
        self.model = model

    def __call__(self, prediction: str, reference: str) -> float:
        """A blank text shares nothing: 0."""
        if not (prediction.strip() and reference.strip()):
            return 0.0
        one, other = self.embed([prediction, reference])
        return min(max(float(one @ other), 0.0), 1.0)  # in this order NaN stays NaN, and `Checked` refuses it

    def embed(self, texts: list[str]) -> torch.Tensor:
        """Unit vectors, float32 on the CPU, [len(texts), hidden]; zeros for a text without a token."""
        with _loading:
            encoder = _encoder(self.model)
        return encoder.embed(texts)


def _expand_home(model: str) -> str:
    return os.path.expanduser(model)  # noqa: PTH111 - a Path would drop the "./" that tells a folder from an id


class _Encoder:
    """A model and its tokenizer, in inference mode, used by one thread at a time."""

    def __init__(self, model: str):
        import torch
        from transformers import AutoModel, AutoTokenizer

        folder = _expand_home(model)
        safe: Any = {"trust_remote_code": False}
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, **safe)
            self.model = AutoModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, **safe)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"similarity 'embedding': cannot load {model!r}. Name a folder or a Hugging Face id "
                f"with config.json, a tokenizer and *.safetensors. transformers says: {error}"
            ) from error
        self.model = self.model.eval().to(os.environ.get(DEVICE_VARIABLE) or "cpu")
        limits = (self.tokenizer.model_max_length, getattr(self.model.config, "max_position_embeddings", None), LONGEST)
        self.longest = min(limit for limit in limits if limit)
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        self.lock = threading.Lock()  # fast tokenizers refuse to be shared

    def embed(self, texts: list[str]) -> torch.Tensor:
        import torch

        with self.lock, torch.inference_mode():
            # On the right: position ids then start at 0 for every text, whatever the model.
            batch = self.tokenizer(
                texts, padding=True, padding_side="right", truncation=True, max_length=self.longest, return_tensors="pt"
            ).to(self.model.device)
            mask = batch["attention_mask"].unsqueeze(-1)
            if not mask.any():
                return torch.zeros(len(texts), self.model.config.hidden_size)
            states = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
            # The sum is enough: a cosine does not see the mean's division by the number of tokens.
            total = states.masked_fill(mask == 0, 0).sum(dim=1)
            return torch.nn.functional.normalize(total, dim=1).cpu()


_encoder = cache(_Encoder)
