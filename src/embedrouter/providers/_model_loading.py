"""The loading of a local model with sentence-transformers, and the comparison with its description.

The description of a model keys the cache, so a loaded model that differs from it is refused: no vector is cached under
another model's name.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from ..errors import ConfigError, UnavailableError
from ..models import Model
from ..types import Candidate, InputType
from . import Description, needs_extra
from ._model_files import PROVIDER, Facts, choose_prompts, find_snapshot, finite, locate, matches_folder, read_facts

if TYPE_CHECKING:
    from tokenizers import Tokenizer

logger = logging.getLogger("embedrouter")

INPUT_TYPES: tuple[InputType, ...] = get_args(InputType)

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
"""Torch's messages, on each kind of device; the exceptions differ and some are plain ``RuntimeError``."""

Counter: TypeAlias = Callable[[Sequence[str]], list[int]]
"""Counts the tokens of texts as the model takes them: special tokens included, nothing cut."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory."""

    client: Any
    count: Counter
    prompts: Mapping[InputType, str]
    """The text before each input: the user's, or the model's own."""
    limits: Mapping[InputType, float]
    """Tokens of one text, its prompt and special tokens included."""


def load(model: Model, known: Description, candidate: Candidate) -> Loaded:
    """Load a model and compare it with its description.

    Raises:
        ConfigError: the package is missing, or the model is not the one described.
        UnavailableError: the model cannot be loaded.
    """
    client = model.client if model.client is not None else _client(model, known)
    own = choose_prompts(client.prompts, client.default_prompt_name)
    _compare(model, known, client.get_embedding_dimension(), own)
    count, taken = _client_counter(client)
    limits = (candidate.limits.input_tokens, finite(client.max_seq_length), taken)
    return Loaded(
        client=client,
        count=count,
        prompts=chosen_prompts(model, own),
        limits={
            kind: min((n for n in (*limits, getattr(client[0], f"{kind}_length", None)) if n), default=math.inf)
            for kind in INPUT_TYPES
        },
    )


def chosen_prompts(model: Model, own: Mapping[InputType, str]) -> dict[InputType, str]:
    """Return the user's prompts, and the model's own where the user gave none."""
    return {kind: (model.prompts or {}).get(kind, own[kind]) for kind in INPUT_TYPES}


def _client(model: Model, known: Description) -> Any:
    with needs_extra(model, PROVIDER):
        from sentence_transformers import SentenceTransformer
    name, folder = locate(model)
    revision = model.revision
    files = known.files or find_snapshot(model, name)
    if files is None:
        logger.info("%s is not on this machine yet and will be downloaded from huggingface.co", name)
    elif folder is None:
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


def _compare(model: Model, known: Description, width: int | None, own: Mapping[InputType, str]) -> None:
    """Refuse a loaded model that contradicts its description.

    Raises:
        ConfigError: files, dimensions or prompts differ.
    """
    card, files = known.card, known.files
    if not matches_folder(known):
        raise ConfigError(f"{files} has changed since the router was built. Build the router again.")
    if width != card.dimensions:
        raise ConfigError(
            f"{model.name} makes {width} dimensions and was described with {card.dimensions}. Correct the description "
            "(dimensions=, the catalogue), or give client= without truncate_dim."
        )
    used = chosen_prompts(model, own)
    described = chosen_prompts(model, read_facts(model, files).prompts) if files else used
    if used != described or (card.symmetric and not model.prompts and used["document"] != used["query"]):
        raise ConfigError(
            f"{model.name} puts other prompts before texts than its description says. Say so, and they are kept "
            f"apart: Model({model.name!r}, prompts={dict(own)})."
        )


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


def _client_counter(client: Any) -> tuple[Counter, int | None]:
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
