"""The findings of a check, each with the setting to change or the line to write."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..types import Space
from ._check import MATCH, NEAR, Finding

Cosines = NDArray[np.float64]

WHICH = "Find the model: embedrouter check STORE --which. Then give the router that model, or embed the texts again."
RELATED = 0.5
"""The cosine from which two vectors of one text have something in common; those of two models stay near 0."""
ALIKE = 0.9
"""The cosine from which vectors of two lengths are of one model, even if the texts differ in line breaks."""
DRIFT = 0.998
"""The cosine that hosted models reach over the years: recordings of ada-002 of one text have 0.9989."""
SCALED = 0.01
"""The difference of lengths from which vectors are said to be scaled in another way."""


SHUFFLED = Finding(
    "The vectors are of this model and stand in wrong rows: each is that of another text.",
    "Texts and vectors were joined in a wrong order: fill the store again. What the router has cached is not paid "
    "again.",
)
BLANK_ENDS = Finding(
    "The vectors are of this model and of texts without the blanks at their ends.",
    "They can be searched as before. For new vectors that are exactly alike, embed text.strip().",
    same_space=True,
)
WITH_PROMPTS = Finding(
    "The vectors are of this model, embedded with the model's own prompts, in place of which the router has others.",
    "Leave prompts= out of Model(…).",
)


def match(ratio: float) -> Finding:
    """Return the finding about vectors of the right direction.

    Args:
        ratio: the length of the stored vectors, as a multiple of that of the new ones.
    """
    if abs(ratio - 1) <= SCALED:
        return Finding(same_space=True)
    return Finding(
        f"Their directions are right, and they are not normalised alike: they are {ratio:.3g} times as long as those "
        "of the model.",
        "With cosine distance that changes nothing. With inner product or L2 distance (FAISS's default) old and new "
        "vectors get scores of different size: use cosine distance, normalise the vectors, or embed the texts again.",
        same_space=True,
    )


def other_length(stored: int, ours: int, cosines: Cosines, space: Space) -> Finding:
    """Return the finding about vectors of another length."""
    head = f"The stored vectors have {stored:,} numbers, the router's {ours:,}"
    if np.median(cosines) >= ALIKE:
        whole, part = ("the stored", "router's") if stored > ours else ("the router's", "stored")
        return Finding(
            f"{head}: the {part} vectors are the beginnings of {whole} ones, of the same model.",
            f"Set the length of the store: Router(…, dimensions={stored}).",
        )
    return Finding(f"{head}: they are of another model than {space.name}.", WHICH)


def unusable(count: int) -> Finding:
    """Return the finding about vectors that are all zeros, or not finite."""
    return Finding(
        f"{count:,} of the stored vectors are all zeros or not finite: whatever filled the store has failed.",
        "Embed these texts again.",
    )


def partly(cosines: Cosines) -> Finding:
    """Return the finding about a store in which some vectors match and others do not."""
    wrong = np.flatnonzero(cosines < MATCH)
    if cosines[wrong].min() >= NEAR:
        return other(cosines, None)
    places = ", ".join(str(position) for position in wrong[:5]) + (" …" if len(wrong) > 5 else "")
    return Finding(
        f"The store is mixed: the vectors at {places} of the sample have cosines of {cosines[wrong].min():.3f} to "
        f"{cosines[wrong].max():.3f} and are of another model, or of other texts.",
        "Look at a larger sample, and embed the texts again that do not match.",
    )


def other(cosines: Cosines, space: Space | None) -> Finding:
    """Return the finding about vectors that no known way explains."""
    middle = float(np.median(cosines))
    if cosines.min() >= DRIFT:
        return Finding(
            f"Near miss: the cosines are {cosines.min():.4f} to {cosines.max():.4f}. Hosted models drift so far over "
            "the years, and quantisation changes vectors as much.",
            "They can be searched as before. If that is no explanation, compare the texts and the version of the model "
            "with what filled the store.",
            same_space=True,
        )
    if middle >= NEAR:
        return Finding(
            f"Near miss: the cosines are {cosines.min():.4f} to {cosines.max():.4f}, where the same model gives at "
            f"least {MATCH}. The vectors are of slightly other texts, of another version or number format of the "
            "model, or strongly quantised.",
            "Compare revision, prompts and preprocessing (upper case, blanks, a title before the text) with what "
            "filled the store.",
        )
    if middle >= RELATED:
        return Finding(
            f"The cosines are {cosines.min():.3f} to {cosines.max():.3f}: the same or a related model, and other texts "
            "or prompts than these, or wrong rows.",
            "Pass the texts exactly as they were embedded; LlamaIndex embeds a node with its metadata: "
            "node.get_content(MetadataMode.EMBED). Or set Model(…, prompts={'document': …}) to what was put before "
            "them.",
        )
    return Finding(
        f"The cosines are {cosines.min():.3f} to {cosines.max():.3f}, as those of unrelated texts: the vectors are of "
        f"another model than {space.name if space else 'the router'}.",
        WHICH + " If the model is the right one, texts and vectors stand in wrong rows.",
    )


def line_breaks(cosines: Sequence[float]) -> Finding:
    """Return the finding about texts whose line breaks were replaced."""
    return Finding(
        "The vectors are of this model and of slightly other texts: line breaks were replaced by blanks before they "
        "were embedded, as LlamaIndex's OpenAIEmbedding and LangChain's HuggingFaceEmbeddings do. To the vectors of "
        f"the unchanged texts they have cosines of {min(cosines):.4f} to {max(cosines):.4f}.",
        "They can be searched as before, and the store can be marked: guard(store, router, adopt=True). For new "
        'vectors that are exactly alike, embed text.replace("\\n", " ").',
        same_space=True,
    )


def other_input_type(stored: str, asked: str) -> Finding:
    """Return the finding about vectors of the other input type."""
    kinds = {"document": "documents", "query": "queries"}
    return Finding(
        f"The vectors are of this model, embedded as {kinds[stored]} and not as {kinds[asked]}: a store's texts are "
        "to be embedded as documents, and what searches as queries.",
        f"Compare them as what they are, check_vectors(…, input_type={stored!r}), or embed the texts again as "
        f"{kinds[asked]}.",
    )


def without_prompts(asked: str) -> Finding:
    """Return the finding about vectors without the prompts of the model."""
    return Finding(
        "The vectors are of this model, embedded without the text that the model's maker puts before each "
        f"{asked} (its prompt).",
        "Give the router the same: Model(…, prompts={'document': '', 'query': ''}); or embed the texts again, which "
        "retrieves better.",
    )


def other_member(name: str) -> Finding:
    """Return the finding about vectors of another model of the router."""
    return Finding(
        f"They are of {name}, another model of the router: its vectors are in the same space.", same_space=True
    )
