"""LiteLLM, imported when it is needed and kept quiet, for every process and loop the same way."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
import threading
import warnings
from collections.abc import Generator
from typing import Any

# Where these are loaded, a model may go away later, and its memory has to come back.
_MAY_HOLD_MUCH = frozenset({"torch", "jax", "tensorflow", "ipykernel"})

# All of them: LiteLLM warns of a price that leaves some out.
FREE = dict.fromkeys(
    (
        "input_cost_per_token",
        "output_cost_per_token",
        "cache_creation_input_token_cost",
        "cache_read_input_token_cost",
    ),
    0.0,
)

_importing = threading.Lock()
_litellm: Any = None
_priced: set[str] = set()
_is_internal: Any = None


def imported() -> bool:
    """True when `import_litellm` has nothing left to do."""
    return _litellm is not None


def import_litellm() -> Any:
    """LiteLLM, quiet and without its look at the network; 2-3 s the first time in a process.

    LiteLLM keeps 400,000 objects alive. A full pass of the garbage collector over them holds up all threads for
    0.1 to 0.2 s, every few thousand calls; so they are frozen (`gc.freeze`), unless something in the
    process may have to be collected later that was made before (`_MAY_HOLD_MUCH`).
    """
    global _litellm, _is_internal
    with _importing:
        if _litellm is not None:
            return _litellm
        # Without this the import fetches a price list from the network.
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        freeze = "litellm" not in sys.modules and gc.isenabled() and _MAY_HOLD_MUCH.isdisjoint(sys.modules)
        if freeze:
            gc.disable()
        try:
            import litellm

            with contextlib.suppress(ImportError):  # a private module: without it, calls cost a seventh more
                from litellm._internal_context import is_internal_call

                _is_internal = is_internal_call
            with contextlib.suppress(ImportError):  # the first call would load it
                importlib.import_module("litellm.litellm_core_utils.default_encoding")
        finally:
            if freeze:
                gc.freeze()
                gc.enable()
        litellm.suppress_debug_info = True
        # A call that is cancelled while LiteLLM's thread prepares it leaves this behind, and nothing else.
        left = "coroutine 'BaseLLMHTTPHandler.async_completion' was never awaited"
        warnings.filterwarnings("ignore", left, RuntimeWarning)
        _litellm = litellm
        return litellm


def free_of_charge(model: str) -> None:
    """Tell LiteLLM that `model` costs nothing, where its price list does not know it.

    LiteLLM prices every call. For a model that it does not know it looks through all of its rules, several
    times a call: a tenth of what a call costs, and more. A price that somebody has set is left as it is.
    """
    if _litellm is None or model in _priced:
        return
    _priced.add(model)
    if model not in _litellm.model_cost:
        _litellm.register_model({model: {"litellm_provider": model.partition("/")[0], "mode": "chat", **FREE}})


@contextlib.contextmanager
def unlogged() -> Generator[None]:
    """While this lasts, this task's LiteLLM calls make no log records, unless somebody listens for them.

    LiteLLM prices and files every call for its callbacks even where there are none.
    """
    lite = _litellm
    listeners = (
        lite.callbacks,
        lite.input_callback,
        lite.success_callback,
        lite.failure_callback,
        lite._async_success_callback,
        lite._async_failure_callback,
        lite._async_input_callback,
        lite.max_budget,
    )
    if _is_internal is None or any(listeners):
        yield
        return
    token = _is_internal.set(True)
    try:
        yield
    finally:
        _is_internal.reset(token)
