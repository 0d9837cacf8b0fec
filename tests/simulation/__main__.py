"""Play the simulation: ``python -m tests.simulation --seed 7 --effects 1000000``."""

import argparse
import sys

from . import search

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--effects", type=int, default=1_000_000)
parser.add_argument("--shrink", type=float, default=60.0, help="seconds, at most")
options = parser.parse_args()
played = search(options.seed, options.effects, shrinking=options.shrink)
print(f"seed {options.seed}: {played}")
if played.found is not None:
    print(played.found)
    sys.exit(1)
