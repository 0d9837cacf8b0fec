"""What happens to the texts of one call: the stages, and the two forms in which they wait.

``_calls`` shows the stages in their order. ``_effects`` says what they may ask of the world; ``_sync`` and ``_async``
perform it.
"""

from ._attempt import fault
from ._call import Degradation, SizedText
from ._calls import Calls, Question, Wiring
from ._pack import pack
from ._validate import achunks, chunks, format_positions, validate

__all__ = [
    "Calls",
    "Degradation",
    "Question",
    "SizedText",
    "Wiring",
    "achunks",
    "chunks",
    "fault",
    "format_positions",
    "pack",
    "validate",
]
