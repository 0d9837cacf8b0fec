"""Process the texts of one call: the stages, and the effects in which a stage waits.

``_calls`` lists the stages in order. ``_effects`` defines the effects; ``_sync`` and ``_async`` perform the effects.
"""

from ._answer import fault, unusable
from ._assemble import warn_if_degraded
from ._call import Degradation, Embedded, SizedText, about
from ._calls import Calls, Prepared
from ._estimate import total
from ._inputs import one_text, texts_in
from ._pack import pack
from ._progress import Progress, ShowProgress
from ._question import Question, ask
from ._reports import Reports
from ._surroundings import surrounded
from ._sync import run
from ._validate import Refusal, achunks, chunk_size_of, chunks, format_positions, validate, without_refused
from ._wiring import LEDGER_FILE, Wiring, require_same_embedder, wire
