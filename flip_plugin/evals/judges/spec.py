"""Which judge model, where: ``[NAME=]MODEL[@URL]`` or ``[NAME=]vllm:PATH_OR_HF_ID``.

`open_model` makes clients of one model. Its seed is part of the sampling, so that neither a cache nor a server
mixes two runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flip_plugin.errors import CommandError
from flip_plugin.judge.client import OFFLINE

# What may stand in a file's name, and keeps `<judge>.<method>.<seed>.jsonl` apart.
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")
_PARTS = re.compile(r"(?:(?P<name>[^=@/:]*)=)?(?P<model>.*?)(?:@(?P<url>https?://.*))?", re.DOTALL)


@dataclass(frozen=True)
class JudgeSpec:
    """A judge by name. `model` is a LiteLLM name, or with `offline` what vLLM loads itself.

    An offline model may have options behind it, as in ``MODEL?max_model_len=8192``: `flip_plugin.evals.judges.offline`.
    """

    name: str
    model: str
    api_base: str | None = None
    offline: bool = False

    @classmethod
    def parse(cls, text: str) -> JudgeSpec:
        """``small=hosted_vllm/judge@http://127.0.0.1:8011/v1``. Raises `CommandError` with what is wrong.

        >>> JudgeSpec.parse("small=hosted_vllm/judge@http://127.0.0.1:8011/v1")
        JudgeSpec(name='small', model='hosted_vllm/judge', api_base='http://127.0.0.1:8011/v1', offline=False)
        >>> JudgeSpec.parse("vllm:Qwen/Qwen3-1.7B").name
        'Qwen3-1.7B'
        """
        match = _PARTS.fullmatch(text.strip())
        assert match is not None  # every group is optional
        offline = match["model"].startswith(OFFLINE)
        model = match["model"].removeprefix(OFFLINE)
        own = re.sub(r"[^\w.+-]", "-", model.partition("?")[0].rstrip("/").rpartition("/")[2])
        name = own if match["name"] is None else match["name"]
        wanted = f"judge {text!r}: [NAME=]MODEL[@URL] or [NAME=]{OFFLINE}PATH_OR_ID is required"
        if not model.strip():
            raise CommandError(f"{wanted}; it names no model")
        if "@" in model and not offline:
            raise CommandError(f"{wanted}; what follows @ must be a URL like http://127.0.0.1:8000/v1")
        if "=" in model and not offline:
            raise CommandError(f"{wanted}; a name is letters, digits and any of _ . + -, without a path")
        if offline and match["url"]:
            raise CommandError(f"{wanted}; a model that vLLM loads here has no URL")
        if not _NAME.fullmatch(name):
            raise CommandError(f"{wanted}; the name {name!r} must be letters, digits and any of _ . + -")
        return cls(name, model, match["url"], offline)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        return asdict(self)


def parse_judges(texts: Sequence[str]) -> list[JudgeSpec]:
    """All of them. Raises `CommandError` when two have one name."""
    specs = [JudgeSpec.parse(text) for text in texts]
    for at, spec in enumerate(specs):
        if any(other.name.lower() == spec.name.lower() for other in specs[:at]):
            raise CommandError(f"two judges are called {spec.name!r}: name them apart, as in a={spec.model}")
    return specs


@contextmanager
def open_model(
    spec: JudgeSpec,
    *,
    timeout: float = 120.0,
    max_concurrency: int = 64,
    cache_path: str | None = None,
    log_path: Path | None = None,
) -> Generator[Callable[..., Any]]:
    """``client(**sampling)`` makes clients of one model, keywords as for `JudgeClient` (seed, temperature, ...)."""
    if spec.offline:
        from flip_plugin.evals.judges.offline import open_engine

        with open_engine(spec.model, cache_path=cache_path, log_path=log_path) as client:
            yield client
        return
    from flip_plugin.judge.client import JudgeClient

    yield lambda **sampling: JudgeClient(
        spec.model,
        spec.api_base,
        timeout=timeout,
        max_concurrency=max_concurrency,
        cache_path=cache_path,
        **sampling,
    )
