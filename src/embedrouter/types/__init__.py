"""Frozen types of the domain, without behaviour.

This room imports no other room of the package, but for how amounts and tables are shown.
"""

from .._display import Table as Table
from .._display import dollars as dollars
from ._domain import OVERLONG as OVERLONG
from ._domain import PACKED as PACKED
from ._domain import Answer as Answer
from ._domain import BatchProgress as BatchProgress
from ._domain import Candidate as Candidate
from ._domain import Entry as Entry
from ._domain import Found as Found
from ._domain import InputType as InputType
from ._domain import Limits as Limits
from ._domain import Origin as Origin
from ._domain import OutputDtype as OutputDtype
from ._domain import OverlongPolicy as OverlongPolicy
from ._domain import RateLimits as RateLimits
from ._domain import Space as Space
from ._domain import Spending as Spending
from ._domain import TokenCounts as TokenCounts
from ._domain import Vectors as Vectors
from ._domain import plain as plain
from ._results import EmbeddingResult as EmbeddingResult
from ._results import Estimate as Estimate
from ._results import Usage as Usage
from ._results import figures as figures
