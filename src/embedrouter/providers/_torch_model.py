"""A model loaded by sentence-transformers, in torch; the counting of its tokens; torch's lack of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from .._display import get_logger
from ..errors import ConfigError, UnavailableError
from ..models import Model
from . import Description, needs_extra
from ._model_files import PROVIDER, Facts, find_files

if TYPE_CHECKING:
    from tokenizers import Tokenizer

logger = get_logger("embedrouter.models")

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""Torch's messages, on each kind of device; the exceptions differ and some are plain ``RuntimeError``."""

Counter: TypeAlias = Callable[[Sequence[str]], list[int]]
"""Counts the tokens of texts as the model takes them: special tokens included, nothing cut."""


def torch_client(model: Model, known: Description) -> Any:
    with needs_extra(model, PROVIDER):
        from sentence_transformers import SentenceTransformer
    name, files = find_files(model, known)
    revision = model.revision
    if files is None:
        logger.info("%s is not on this machine yet and will be downloaded from huggingface.co", name)
    elif str(files) != name:
        revision = files.name  # the commit that is on this machine
    with _without_progress_bar(), memory_errors(model):
        try:
            return SentenceTransformer(
                name,
                revision=revision,
                trust_remote_code=model.trust_remote_code,
                device=model.device,
                local_files_only=files is not None,
            )
        except OSError as error:  # the hub's errors are among these, after several attempts of its client
            raise UnavailableError(f"cannot be loaded: {error}", model=model.name, retryable=False) from error
        except (ValueError, ImportError) as error:
            raise ConfigError(f"{model.name} cannot be loaded: {error}") from error


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Hide the progress bar that transformers draws while it loads weights."""
    from transformers.utils import logging as bars

    before = bars.set_tqdm_hook(_hidden)
    try:
        yield
    finally:
        bars.set_tqdm_hook(None if before is _hidden else before)  # two models may be loaded at once


def _hidden(bar: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    return bar(*args, **{**options, "disable": True})


# Counting


def file_counter(model: Model, facts: Facts) -> Counter:
    """Return a counter that reads the model's ``tokenizer.json``.

    Raises:
        ConfigError: the package is missing.
    """
    with needs_extra(model, PROVIDER):
        from tokenizers import Tokenizer
    count = _counter(Tokenizer.from_file(str(facts.tokenizer)), special=not facts.static)
    return (lambda texts: count([text.lower() for text in texts])) if facts.lower else count


def client_counter(client: Any) -> tuple[Counter, int | None]:
    """Return a counter that works as the loaded tokenizer does, and the limit that a bare tokenizer was saved with.

    The counter has a copy: the tokenizer in use is changed by each call (padding, truncation) and cannot be shared.
    """
    from tokenizers import Tokenizer

    own = client.tokenizer
    if isinstance(own, Tokenizer):  # word vectors: special tokens are left out
        limit = (own.truncation or {}).get("max_length")
        return _counter(Tokenizer.from_str(own.to_str()), special=False), limit
    if (fast := getattr(own, "backend_tokenizer", None)) is not None:
        return _counter(Tokenizer.from_str(fast.to_str()), special=True), None
    return (lambda texts: [len(own(text, truncation=False)["input_ids"]) for text in texts]), None


def _counter(tokenizer: Tokenizer, *, special: bool) -> Counter:
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def count(texts: Sequence[str]) -> list[int]:
        return [len(found.ids) for found in tokenizer.encode_batch_fast(list(texts), add_special_tokens=special)]

    return count


# Errors


@contextmanager
def memory_errors(model: Model) -> Iterator[None]:
    """Translate torch's lack of memory; other errors pass."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error).lower() for words in OUT_OF_MEMORY):
            raise
        raise UnavailableError(
            "the memory does not suffice. Send less at once with Model(…, batch_size=8), or set device='cpu'.",
            model=model.name,
            retryable=False,
        ) from error
