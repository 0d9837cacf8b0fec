"""How each contestant does its work; see `tests.benchmarks.worker` for what a work is."""
