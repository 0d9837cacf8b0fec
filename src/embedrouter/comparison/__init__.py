"""Compare embedding models on one's own documents and queries: quality with intervals, money, speed, bytes.

Every variant ranks against its own vectors only, by exact search.
"""

from ._comparison import MEASURES, Comparison, Hit, Interval, Measured, Pair, Speed, Variant
from ._questions import JudgedBy, Questions
