"""A comparison as one HTML page: the chart of money and quality, all figures, and the queries on which models differ.

``_page`` puts the sections together, ``_chart`` draws with the positions of ``_scale``, ``_markup`` escapes every text.
"""

from ._page import html_report

__all__ = ["html_report"]
