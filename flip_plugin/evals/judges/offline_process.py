"""The process of an offline judge, ``python -m flip_plugin.evals.judges.offline_process FD``: `offline` starts it.

Lines of JSON over the socket FD. First in: ``{"llm": keywords of vllm.LLM}``; first out: ``{"window": tokens}``.
Then, in any order:

    in   {"id", "messages", "temperature", "max_tokens"}, and where wanted {"seed", "extra_body", "response_format"}
    out  {"id", "text", "finish_reason", "prompt_tokens", "completion_tokens"}  or  {"id", "error", "kind"}
    in   {"id", "count": messages, "template": chat_template_kwargs}
    out  {"id", "tokens"}

A request joins those that run as soon as it is read, as on a server; it is put to vLLM by the first half of
``LLM.chat`` (``LLM.enqueue_chat``), so that one bad request fails alone, and the engine's steps are the second. Ends at
the end of its input. Whatever else goes wrong ends the process with a traceback in its log, which the parent quotes.
"""

from __future__ import annotations

import json
import select
import socket
import sys
from collections.abc import Mapping
from typing import Any

from flip_plugin.judge.errors import TOO_LONG

# Requests taken between two steps of the engine: reading on for longer would let those that run wait.
MOST_AT_ONCE = 128
# Of `extra_body`, what a vLLM server takes and `SamplingParams` has under the same name.
SAMPLING = frozenset(
    (
        *("top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
        *("stop", "stop_token_ids", "min_tokens", "ignore_eos", "bad_words", "skip_special_tokens"),
    )
)


class BadRequest(ValueError):
    """A request that asks for what there is not."""


class Lines:
    """JSON lines over a socket, read without waiting while the engine has work."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.open = True
        self._buffer = bytearray()

    def read(self, *, wait: bool, most: int = MOST_AT_ONCE) -> list[dict[str, Any]]:
        """What has come, at most so many; with `wait` at least one, unless `open` turned False."""
        while self.open:
            has_line = b"\n" in self._buffer
            ready, _, _ = select.select([self.connection], [], [], None if wait and not has_line else 0)
            if not ready:
                break
            piece = self.connection.recv(1 << 20)
            self.open = bool(piece)
            self._buffer += piece
            if wait and b"\n" in self._buffer:
                break
        lines = self._buffer.split(b"\n", most)
        self._buffer = lines.pop()
        return [json.loads(line) for line in lines]

    def write(self, message: Mapping[str, Any]) -> None:
        """One line out."""
        self.connection.sendall(json.dumps(message).encode() + b"\n")


class Engine:
    """vLLM's `LLM`, its requests by their ids in the parent."""

    def __init__(self, llm: Any) -> None:
        self.llm = llm
        self.window: int = llm.model_config.max_model_len
        # The server's own defaults: what the model's generation_config.json says.
        self.defaults: dict[str, Any] = llm.model_config.get_diff_sampling_param()
        self.running: dict[str, int] = {}

    def take(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Begin with a request; a reply where there is one at once."""
        number = request["id"]
        try:
            if "count" in request:
                return {"id": number, "tokens": self._count(request["count"], request.get("template") or {})}
            name = self._begin(request)
        except _refusals() as error:
            too_long = any(sign in str(error).lower() for sign in TOO_LONG)
            return {"id": number, "error": str(error), "kind": "context_overflow" if too_long else "bad_request"}
        self.running[name] = number
        return None

    def _begin(self, request: dict[str, Any]) -> str:
        """vLLM's name for the request, as its output will have it."""
        extra = dict(request.get("extra_body") or {})
        template = extra.pop("chat_template_kwargs", None)
        params = self._sampling(request, extra)
        (name,) = self.llm.enqueue_chat(
            [request["messages"]], params, use_tqdm=False, chat_template_kwargs=template or None
        )
        return name.partition("-")[0]  # inside vLLM random letters follow

    def _sampling(self, request: Mapping[str, Any], extra: Mapping[str, Any]) -> Any:
        from vllm import SamplingParams

        if unknown := extra.keys() - SAMPLING:
            raise BadRequest(f"the offline judge does not know {', '.join(sorted(unknown))} in extra_body")
        if request["max_tokens"] > self.window:
            raise BadRequest(f"max_tokens={request['max_tokens']} is more than the model's {self.window}")
        options: dict[str, Any] = {
            **self.defaults,
            **extra,
            "temperature": request["temperature"],
            "seed": request.get("seed"),
        }
        options["max_tokens"] = min(request["max_tokens"], self.defaults.get("max_tokens", request["max_tokens"]))
        return SamplingParams.from_optional(**options, structured_outputs=_structured(request.get("response_format")))

    def _count(self, messages: list[dict[str, Any]], template: Mapping[str, Any]) -> int:
        tokenizer = self.llm.get_tokenizer()
        ids = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False, **template
        )
        return len(ids)

    @property
    def busy(self) -> bool:
        """True while requests run."""
        return self.llm.llm_engine.has_unfinished_requests()

    def step(self) -> list[dict[str, Any]]:
        """One step of all that runs; the replies that are complete."""
        replies = []
        for output in self.llm.llm_engine.step():
            if output.finished:
                sample = output.outputs[0]
                replies.append(
                    {
                        "id": self.running.pop(output.request_id),
                        "text": sample.text,
                        "finish_reason": sample.finish_reason,
                        "prompt_tokens": len(output.prompt_token_ids or ()),
                        "completion_tokens": len(sample.token_ids),
                    }
                )
        return replies


def _structured(response_format: Mapping[str, Any] | None) -> Any:
    """OpenAI's ``response_format`` as vLLM's parameters. Raises `BadRequest` for a type that is not known here."""
    from vllm.sampling_params import StructuredOutputsParams

    kind = (response_format or {}).get("type", "text")
    if response_format is None or kind == "text":
        return None
    if kind == "json_object":
        return StructuredOutputsParams(json_object=True)
    if kind == "json_schema":
        return StructuredOutputsParams(json=response_format["json_schema"]["schema"])
    raise BadRequest(f"the offline judge does not know the response_format {kind!r}")


def _refusals() -> tuple[type[Exception], ...]:
    """What vLLM raises for a message, schema or option that it does not take; older ones raise ValueError alone."""
    import vllm.exceptions
    from jinja2 import TemplateError

    return ValueError, TypeError, TemplateError, getattr(vllm.exceptions, "VLLMClientError", ValueError)


def serve(engine: Engine, lines: Lines) -> None:
    """Answer until the parent closes its end."""
    while lines.open:
        for request in lines.read(wait=not engine.busy):
            reply = engine.take(request)
            if reply is not None:
                lines.write(reply)
        if engine.busy:
            for reply in engine.step():
                lines.write(reply)


def main(descriptor: int) -> None:
    """Load what the first line says, and serve."""
    lines = Lines(socket.socket(fileno=descriptor))
    (start,) = lines.read(wait=True, most=1) or [None]
    if start is None:
        return
    from vllm import LLM

    engine = Engine(LLM(**start["llm"]))
    lines.write({"window": engine.window})
    serve(engine, lines)


if __name__ == "__main__":
    main(int(sys.argv[1]))
