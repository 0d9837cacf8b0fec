"""The frameworks' own test suites, with our adapters in place of their fake embedders.

    python -m tests.frameworks [SUITE …] [--llama-index CHECKOUT/llama-index-core]

downloads the source distributions of the releases that are installed, runs the tests that ``suites.py`` names twice, as
they are and with every fake replaced by ``swapped_fakes.py``, and tells which pass with their fakes alone. A table has
for each suite the tests that pass with theirs, those that pass with ours, and those in which a router embedded texts.
``nox -s frameworks`` makes the environment.
"""
