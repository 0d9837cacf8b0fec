"""What happens to the texts of one call: the stages, and the two forms in which they wait.

``_calls`` shows the stages in their order. ``_effects`` says what they may ask of the world; ``_sync`` and ``_async``
perform it.
"""

from ._attempt import fault
from ._call import Degradation, SizedText
from ._calls import Calls, Prepared, Question
from ._pack import pack
from ._validate import achunks, chunks, format_positions, validate
from ._wiring import LEDGER_FILE, Wiring, wire

__all__ = [
    "LEDGER_FILE",
    "Calls",
    "Degradation",
    "Prepared",
    "Question",
    "SizedText",
    "Wiring",
    "achunks",
    "chunks",
    "fault",
    "format_positions",
    "pack",
    "validate",
    "wire",
]
