"""Check that the models of a router agree, by vectors of the probe texts."""

from collections.abc import Callable, Mapping, Sequence

from ..errors import EmbedRouterError
from ..models.agreement import PROBE_TEXTS, Agreement, ProbeVectors, compare_models, require_agreement, unique_names
from ..types import Candidate, EmbeddingResult, InputType, Vectors


def check_agreement(
    candidates: Sequence[Candidate],
    kinds: Mapping[InputType, str],
    embed_alone: Callable[[int, Sequence[str], InputType], EmbeddingResult],
) -> list[Agreement]:
    """Compare every two models by their vectors of the probe texts, under each input type.

    Args:
        embed_alone: embeds with the model at a position, without the cache.

    Raises:
        SpaceMismatchError: two models do not agree.
        EmbedRouterError: a model could not be called; the other models agree.
    """
    probed: list[ProbeVectors] = []
    failures: list[EmbedRouterError] = []
    names = unique_names([candidate.name for candidate in candidates])
    for position, name in enumerate(names if len(names) > 1 else ()):
        try:
            vectors: dict[InputType, Vectors] = {
                kind: embed_alone(position, PROBE_TEXTS, kind).vectors for kind in kinds
            }
            probed.append(ProbeVectors.of(candidates[position], name, vectors))
        except EmbedRouterError as error:
            failures.append(error)
    found = compare_models(probed)
    require_agreement(found)
    if failures:
        raise failures[0]
    return found
