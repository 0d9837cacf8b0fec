"""How a call with wrong arguments is written: the right call, and what an argument is called here.

Python's own message names the wrong argument, and neither the right one nor the place where it belongs.
"""

import inspect
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from functools import wraps
from typing import Any, TypeVar

T = TypeVar("T")
SIMILAR = 0.75
KEY, ADDRESS, MODELS = "Model(…, api_key=…)", "Model(…, base_url=…)", "Router(['openai:text-embedding-3-small'])"
SIZE, RETRY, WAIT = "Model(…, batch_size=…)", "Router(…, retry=RetryPolicy(attempts=3))", "Model(…, timeout=60)"
ELSEWHERE = {
    **dict.fromkeys(("key", "apikey", "api_token", "token", "openai_api_key", "voyage_api_key", "cohere_api_key"), KEY),
    **dict.fromkeys(("url", "api_base", "openai_api_base", "endpoint", "host", "azure_endpoint"), ADDRESS),
    **dict.fromkeys(("model", "model_name", "model_id", "engine", "embed_model"), MODELS),
    **dict.fromkeys(("chunk_size", "embed_batch_size", "max_batch_size"), SIZE),
    **dict.fromkeys(("retries", "max_retries", "num_retries", "attempts"), RETRY),
    **dict.fromkeys(("request_timeout", "timeout"), WAIT),
    **dict.fromkeys(("cache_dir", "cache_folder", "cache_path", "cache_backend"), "Router(…, cache='folder')"),
    **dict.fromkeys(("rpm", "requests_per_min"), "Model(…, requests_per_minute=…)"),
    **dict.fromkeys(("tpm", "tokens_per_min"), "Model(…, tokens_per_minute=…)"),
    **dict.fromkeys(("concurrency", "max_workers", "num_workers"), "Model(…, max_concurrency=…)"),
    **dict.fromkeys(("fallbacks", "fallback"), "Router([first, second]), which are asked in turn"),
    **dict.fromkeys(("dim", "embed_dim", "output_dimensionality"), "Router([…], dimensions=256)"),
    "truncate": "Router(…, on_too_long='truncate')",
    **dict.fromkeys(("input", "inputs", "documents", "queries", "sentences"), "embed(texts, input_type='document')"),
    "api_key": KEY,
    "base_url": ADDRESS,
    "api_key_env": "Model(…, api_key_env=…)",
    "headers": "Model(…, headers=…)",
    "default_headers": "Model(…, headers=…)",
    "deployment": "Model(…, deployment=…)",
    "api_version": "Model(…, api_version=…)",
    "batch_size": SIZE,
    "price": "Model(…, price=…)",
    "space": "Model(…, space=…, dimensions=…)",
    "budget": "Router(…, budget=…)",
    "cache": "Router(…, cache=…)",
    "retry": RETRY,
    "dimensions": "Router([…], dimensions=256)",
    "tier": "query_tier='low' for queries; or Model(…, tier='low') for a model",
    "input_type": "embed(texts, input_type='document')",
    "task_type": "embed(texts, input_type='document')",
}
"""What to write in place of arguments of other libraries, and of those that belong elsewhere."""


def hint_for(name: str, known: Collection[str], others: Mapping[str, str] | None = None) -> str:
    """Return what to write in place of an argument that is not known; an empty string where that is not known.

    Args:
        known: the arguments that there are.
        others: more specific hints.
    """
    near = get_close_matches(name, known, 1, cutoff=SIMILAR)
    elsewhere = (others or {}).get(name) or ("" if near else ELSEWHERE.get(name, ""))
    return f"Write {elsewhere}." if elsewhere else f"Did you mean {near[0]}=?" if near else ""


def explained(call: str, **others: str) -> Callable[[type[T]], type[T]]:
    """Have the constructor of a class, and its methods that take texts, say how a wrong call is written.

    Args:
        call: a right call of the constructor.
        others: what to write in place of arguments that the constructor does not have.
    """

    def explain(kind: type[T]) -> type[T]:
        kind.__init__ = _explained(kind.__init__, kind.__name__, call, others)  # type: ignore[method-assign]
        for name, method in list(vars(kind).items()):
            if inspect.isfunction(method) and name[0] != "_" and "input_type" in inspect.signature(method).parameters:
                right = f"{name}(texts, input_type='document')"
                setattr(kind, name, _explained(method, f"{kind.__name__}.{name}", right, {}))
        return kind

    return explain


def _explained(function: Any, title: str, call: str, others: Mapping[str, str]) -> Any:
    known = [name for name in inspect.signature(function).parameters if name != "self"]

    def reason(error: TypeError, arguments: Mapping[str, Any]) -> TypeError | None:
        """Return the error of a call that does not fit the signature; ``None`` for an error from within."""
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            return None
        if unknown := [name for name in arguments if name not in known]:
            how = hint_for(unknown[0], known, others) or f"Arguments are {', '.join(known)}, as in {call}."
            return TypeError(f"{title} has no argument {unknown[0]}=. {how}")
        return TypeError(f"{title}: {str(error).partition('() ')[2]}. Write {call}.")

    @wraps(function)
    def run(*given: Any, **arguments: Any) -> Any:
        try:
            return function(*given, **arguments)
        except TypeError as error:
            if (told := reason(error, arguments)) is None:
                raise
        raise told

    @wraps(function)
    async def arun(*given: Any, **arguments: Any) -> Any:
        try:
            return await function(*given, **arguments)
        except TypeError as error:
            if (told := reason(error, arguments)) is None:
                raise
        raise told

    return arun if inspect.iscoroutinefunction(function) else run
