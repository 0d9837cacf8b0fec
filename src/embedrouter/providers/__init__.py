"""The providers: the facts of each model before it is called, and the ``Backend`` that calls it.

Each module serves one provider with ``describe`` and ``create``. Those that speak to an SDK read in the same order:
``connect``, then the four steps of a request: ``build_request``, ``send``, ``parse_answer``, ``translate_error``. The
SDK is imported when the first request is made, never earlier, and only its documented interface is used.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from .._display import shown_name
from .._process import importing
from ..errors import ConfigError
from ..models import Backend, Card, Catalogue, Model, Server, custom_card, did_you_mean, load_catalogue
from ..types import Candidate
from ._environment import Address
from ._tiktoken import encoding
from .versions import check_versions

__all__ = [
    "Address",
    "Backend",
    "Description",
    "address_of",
    "create",
    "describe",
    "encoding",
    "format_of",
    "never_sent",
    "require_connectable",
    "runtime_of",
]

TAKE_FIELDS = ("openai", "ollama")
"""The protocols whose requests take the fields of ``extra_body``."""

GROUP = "embedrouter.providers"
"""The group of entry points under which packages bring providers of their own, each by its name."""


def never_sent(error: BaseException) -> bool:
    """Return whether an exception, also of a backend of the user's, means that no connection was made."""
    from ._connections import was_sent  # imports what only requests need

    return not was_sent(error)


@dataclass(frozen=True, slots=True)
class Description:
    """The facts of a model before it is called."""

    card: Card
    server: Server | None = None
    """The row of the provider; ``None`` for backends and embedders of the user's."""
    local: bool = False
    """Whether the model runs in this process."""
    instant: bool = False
    """Whether the model makes a vector in less time than a cache needs to read one: it averages word vectors."""
    batches: bool = False
    """Whether the provider has a batch endpoint."""
    free_batches: bool = True
    """Whether an account's free tokens pay for batches, too."""
    cuts: bool = False
    """Whether the provider cuts long texts silently."""
    identity: str | None = None
    """Tells the model's vectors from others' where the card's name does not (a revision, the hash of a folder)."""
    files: Path | None = None
    """The folder of the model's files, where it is on this machine."""
    module: Any = field(default=None, repr=False)
    """The module of the provider; ``describe`` of this package sets it."""


def describe(model: Model, catalogue: Catalogue, dimensions: int | None) -> Description:
    """Return the facts of a model, from the catalogue, its files or its declaration. No socket is opened.

    Raises:
        ConfigError: the facts do not suffice; the message says what to declare.
    """
    if model.backend is not None:
        return Description(catalogue.get(model.name) or custom_card(model, dimensions))
    server = catalogue.servers.get(model.provider)
    if model.extra_body and (server is None or server.protocol not in TAKE_FIELDS):
        raise ConfigError(f"{model.name}: extra_body= is for servers of OpenAI's protocol, such as 'openai:…'.")
    module = _provider(model, server)
    known: Description = module.describe(model, catalogue, dimensions)
    known = replace(known, server=known.server or server, module=module)
    if model.output_dtype is not None and model.embedder is None:
        _require_numbers(model, known)
    return known


def create(model: Model, known: Description, candidate: Candidate) -> Backend:
    """Return the backend of a model. Nothing is opened and no SDK imported until the first request."""
    if model.backend is not None:
        return model.backend
    backend: Backend = known.module.create(model, known, candidate)
    return backend


def _require_numbers(model: Model, known: Description) -> None:
    """Refuse numbers that the model does not have, or that requests to its server cannot ask for.

    Raises:
        ConfigError: the message lists the number types that can be had.
    """
    card, server = known.card, known.server
    askable = card.dtypes if server is None else server.dtypes
    offered = [name for name in askable if card.declared or name in card.dtypes]
    if model.output_dtype not in offered:
        choice = f"Choose one of {', '.join(offered)}, or leave" if offered else "Leave"
        raise ConfigError(
            f"{model.name} does not offer output_dtype={model.output_dtype!r}. {choice} output_dtype= out for float32."
        )


def require_connectable(backend: Backend) -> None:
    """Make the client of a provider, which takes its package and a key, and make no request.

    Raises:
        ConfigError: the package, or a setting, is missing.
        AuthenticationError: the key is missing.
    """
    from ._remote import RemoteBackend  # imports what only requests need

    if isinstance(backend, RemoteBackend):
        with backend.clients.lease():
            pass


def address_of(backend: Backend) -> Address | None:
    """Return the address to which a backend of this package sends requests, where it is known."""
    found = getattr(backend, "address", None)
    return found if isinstance(found, Address) else None


def format_of(backend: Backend) -> str:
    """Return the format of numbers that a backend of this package asks for; empty where its requests name none."""
    found = getattr(backend, "encoding_format", "")
    return found if isinstance(found, str) and found != "omit" else ""


def runtime_of(backend: Backend) -> str:
    """Return what computes a local model of this package, as ``ModelHealth.runtime`` says; empty for other models."""
    found = getattr(backend, "runtime", "")
    return found if isinstance(found, str) else ""


def _provider(model: Model, server: Server | None) -> Any:
    """Return the module that serves a model, with its functions ``describe`` and ``create``."""
    if model.embedder is not None:
        return import_module(".wrapped", __package__)
    if server is not None:
        return import_module(f".{server.protocol}", __package__)
    for found in entry_points(group=GROUP, name=model.provider):
        return found.load()
    raise ConfigError(
        f"Unknown provider {shown_name(model.provider)} in {shown_name(model.name)}."
        + (did_you_mean(model.name) or f" Known are {', '.join(known_providers())}.")
        + " A server of OpenAI's protocol needs a row of a catalogue (Router(catalog=…)); for any other pass backend= "
        "(see embedrouter.backends.Backend)."
    )


def known_providers() -> list[str]:
    """Return the providers that ship with the package, and those of installed packages."""
    own = dict.fromkeys(server.name for server in load_catalogue().servers.values())
    return [*own, *sorted({found.name for found in entry_points(group=GROUP)})]


@contextmanager
def needs_extra(model: Model, extra: str) -> Iterator[None]:
    """Have a failing import name the extra to install, and refuse versions that are known not to fit.

    Raises:
        ConfigError: a package is missing, or installed in a version outside the extra's range.
    """
    check_versions(model.name, extra)
    try:
        with importing:
            yield
    except ImportError as error:
        raise ConfigError(
            f"{model.name} needs {error.name or extra!r}, which is not installed. Run: "
            f"pip install 'embedrouter[{extra}]'"
        ) from error
