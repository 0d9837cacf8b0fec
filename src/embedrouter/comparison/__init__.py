"""Compare embedding models on one's own documents and queries: quality with intervals, money, speed, bytes.

Every variant ranks against its own vectors only, by exact search.
"""

from ._choice import Choice
from ._compare import acompare, compare, plan_comparison
from ._comparison import Comparison
from ._findings import MEASURES, Hit, Interval, Measured, Pair, Speed, Variant
from ._frontier import as_good as as_good
from ._frontier import cheapest_as_good as cheapest_as_good
from ._frontier import difference_of as difference_of
from ._frontier import smallest_as_good as smallest_as_good
from ._judgements import read_judgements as read_judgements
from ._plan import Plan
from ._questions import JudgedBy, Questions
from ._reading import holds_questions as holds_questions
from ._reading import read_questions
from ._texts import QUERIES as QUERIES
from ._texts import Chosen as Chosen
from ._texts import read_texts as read_texts

__all__ = [
    "Choice",
    "Comparison",
    "Hit",
    "Interval",
    "Measured",
    "Pair",
    "Plan",
    "Questions",
    "Speed",
    "Variant",
    "acompare",
    "compare",
    "plan_comparison",
    "read_questions",
]
