"""The resolution of declarations into ``Candidate``s, all of one space.

Space, fingerprint, price and limits are resolved once, when a router is built.
"""

import hashlib
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from .._display import shown, shown_name
from ..errors import ConfigError, SpaceMismatchError
from ..limits import REQUESTS_PER_LIMIT
from ..spending import DECIMALS, as_price
from ..types import PACKED, Candidate, Limits, Space
from ._catalogue import Card, did_you_mean, load_catalogue
from ._declaration import Model

NEUTRAL_FIELDS = frozenset({"user", "metadata", "tags", "provider", "cache", "caching", "num_retries", "timeout"})
"""Fields of a request that no server's vectors depend on: for accounting, routing and caching."""


def custom_card(model: Model, dimensions: int | None, **facts: Any) -> Card:
    """Return the card of a model that is not in the catalogue, from its declaration.

    Raises:
        ConfigError: ``space`` or ``dimensions`` is missing; the message says how to declare them.
    """
    dimensions = model.dimensions or dimensions
    missing = [name for name, value in (("space", model.space), ("dimensions", dimensions)) if value is None]
    if model.space is None or dimensions is None:
        raise ConfigError(
            f"The catalogue does not know {shown_name(model.name)}.{_served_name(model)} If it is a model of your own, "
            f"declare it: Model({shown_name(model.name)}, {', '.join(f'{name}=…' for name in missing)})."
        )
    known = {"model": model.name, "space": model.space, "dimensions": dimensions, "texts": 32, "symmetric": False}
    return Card(**{**known, "declared": True, **facts})


def _served_name(model: Model) -> str:
    """Return advice for a name that a server gives to a model: the catalogue's name, and the server's as deployment."""
    names = [name.partition(":")[2] for name in load_catalogue() if name.startswith(f"{model.provider}:")]
    contained = [name for name in names if name in model.id.lower()]
    server = load_catalogue().servers.get(model.provider)
    own_names = server is not None and server.protocol == "openai"
    if not own_names or not (contained or model.provider == "azure_openai"):
        return did_you_mean(model.name)
    name = max(contained, key=len, default=names[0])
    return (
        f" If {shown_name(model.id)} is your server's own name for a model of the catalogue, declare the model by the "
        f"catalogue's name: Model('{model.provider}:{name}', deployment={shown_name(model.id)})."
    )


def resolve(
    model: Model,
    card: Card,
    *,
    dimensions: int | None,
    index: int,
    rank: int,
    local: bool,
    instant: bool = False,
    batches: bool = False,
    free_batches: bool = True,
    cuts: bool = False,
    identity: str | None = None,
) -> Candidate:
    """Resolve every fact about a model of a router.

    Args:
        dimensions: the number that the router requests from all its models.
        local: whether the model runs in this process.
        instant: whether it makes a vector in less time than a cache needs to read one.
        batches: whether the provider has a batch endpoint.
        free_batches: whether an account's free tokens pay for batches, too.
        cuts: whether the provider cuts long texts silently.
        identity: identity of the model's vectors, where the name of the card is not enough (a revision, the hash of a
            local folder).

    Raises:
        ConfigError: the declaration contradicts the card.
    """
    wanted = model.dimensions or dimensions or card.dimensions
    if not card.offers(wanted):
        offered = "every number below" if card.allowed == "any" else ", ".join(map(str, sorted(card.allowed))) or "none"
        raise ConfigError(
            f"{model.name} does not offer {shown(wanted)} dimensions, only {card.dimensions} (others: {offered}). "
            f"Set dimensions= to one of these."
        )
    if model.space is not None and model.space != card.space:
        raise ConfigError(
            f"{model.name} is known to be in the space {card.space!r}, not {shown_name(model.space)}. Leave space= out."
        )
    packed = model.output_dtype in PACKED
    if packed and wanted % 8:
        raise ConfigError(
            f"{model.name}: output_dtype={model.output_dtype!r} packs eight dimensions into a number, and {wanted} is "
            "no multiple of 8. Set dimensions= to one."
        )
    longer = card.longer_than(wanted) if model.output_dtype is None else ()
    own, prompts = dict(sorted((card.prompts or {}).items())) if card.own_prompts else {}, _prompts(model, card)
    bodies = _bodies(model)
    space = _space(model, card) + _suffix("prompts", prompts) + _suffix("body", bodies)
    identity = identity or card.identity

    def fingerprint(length: int) -> str:
        others = [extra for extra in (bodies, own) if extra]
        return json.dumps([identity, card.space, length, prompts, model.output_dtype or "float32", *others])

    return Candidate(
        index=index,
        name=model.name,
        tier=model.tier,
        rank=rank,
        space=Space(space, wanted // 8 if packed else wanted),
        fingerprint=fingerprint(wanted),
        output_dtype=model.output_dtype,
        longer=tuple((length, fingerprint(length)) for length in longer),
        symmetric=card.symmetric and not prompts and bodies.get("document") == bodies.get("query"),
        price=as_price(model.price, model.name) if model.price is not None else card.price,
        batch_price=_batch_price(model, card) if batches else None,
        free_tokens=model.free_tokens,
        batch_free_tokens=model.free_tokens if free_batches else 0,
        limits=Limits(
            texts=model.batch_size or card.texts,
            tokens=_request_tokens(model, card),
            size=card.size,
            input_tokens=model.max_input_tokens or card.input_tokens,
        ),
        concurrency=model.max_concurrency or card.concurrency or (1 if local else 8),
        requests_per_minute=model.requests_per_minute or card.requests_per_minute,
        texts_per_minute=model.texts_per_minute or card.texts_per_minute,
        tokens_per_minute=model.tokens_per_minute or card.tokens_per_minute,
        served_as=tuple(model.served_as),
        timeout=model.timeout,
        local=local,
        instant=instant,
        cuts=cuts,
        repeats=local or model.embedder is not None,
        reads_context=any(
            code is not None
            for code in (model.embedder, model.client, model.async_client, model.azure_ad_token_provider)
        ),
    )


def _space(model: Model, card: Card) -> str:
    """Return the name of the space. Makers call models of a family comparable in floats alone: other numbers are of one
    model."""
    if model.output_dtype is None:
        return card.space
    own = card.space if card.declared else card.identity.partition(":")[2]
    return f"{own}+{model.output_dtype}"


def _prompts(model: Model, card: Card) -> dict[str, str]:
    """Return the prompts that mark a space: those that are not the model's own, by input type.

    An empty prompt leaves out the one that a model has, in its files or by its own row; vectors without it are another
    space. Where the row has prompts of the maker's card alone, the model without prompts is the space without a mark.
    """
    given = dict(sorted((model.prompts or {}).items()))
    if card.prompts is None:
        return given
    usual, asked = _without_empty(card.prompts), _without_empty(given)
    if not card.own_prompts:
        return usual if model.prompts is None else asked
    return {} if model.prompts is None or asked == usual else {"document": "", "query": "", **given}


def _without_empty(prompts: Mapping[str, str]) -> dict[str, str]:
    return {kind: text for kind, text in sorted(prompts.items()) if text}


def _bodies(model: Model) -> dict[str, Any]:
    """Return the fields of ``extra_body`` that may change vectors, by input type."""
    bodies = {
        kind: {name: value for name, value in sorted(model.body(kind).items()) if name not in NEUTRAL_FIELDS}
        for kind in ("document", "query")
    }
    return bodies if any(bodies.values()) else {}


def _suffix(what: str, content: dict[str, Any]) -> str:
    """Return what marks the space of vectors that depend on further settings."""
    digest = hashlib.blake2b(json.dumps(content, sort_keys=True, default=str).encode(), digest_size=4).hexdigest()
    return f"+{what}-{digest}" if content else ""


def shared_space(candidates: list[Candidate]) -> Space:
    """Return the space that all candidates share.

    Raises:
        SpaceMismatchError: two candidates have different spaces; the message names both and the reason.
    """
    first = candidates[0]
    for other in candidates[1:]:
        if other.space == first.space:
            continue
        if other.output_dtype != first.output_dtype:
            reason = "vectors of different number types cannot be compared"
            advice = "Declare the same output_dtype= for every model, or give each number type a router of its own."
        elif other.space.name == first.space.name:
            reason = "vectors of different length cannot be compared"
            advice = "Set dimensions= on the router to a number that every model offers."
        else:
            reason = "they were trained apart: a distance between their vectors means nothing, even at equal dimensions"
            if first.output_dtype:
                reason = f"no maker calls the {first.output_dtype} vectors of two models comparable"
            advice = (
                "Give each space a router of its own, and use TieredRouter to choose between them; "
                "each router then needs its own vector store."
            )
        raise SpaceMismatchError(
            f"{first.name} gives vectors in the space {first.space}, {other.name} in {other.space}: {reason}. {advice}"
        )
    return first.space


def _request_tokens(model: Model, card: Card) -> int | None:
    """Return how many tokens one request may hold: few enough that the requests use a limit of tokens per minute fully.

    Half of the requests of a minute must suffice, because a bill may be little more than half of an estimate.
    """
    most = model.max_request_tokens or card.tokens
    if model.tokens_per_minute is None:
        return most
    parts = min(REQUESTS_PER_LIMIT, (model.requests_per_minute or 2 * REQUESTS_PER_LIMIT) // 2) or 1
    share = max(1, model.tokens_per_minute // parts)
    return share if most is None else min(most, share)


def _batch_price(model: Model, card: Card) -> Decimal | None:
    """Return the price through the batch endpoint: for a declared price, the catalogue's share of the full price."""
    price = as_price(model.price, model.name)
    if price is None or card.batch_price is None or not card.price:
        return card.batch_price
    return round(price * card.batch_price / card.price, DECIMALS)
