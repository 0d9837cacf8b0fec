"""Move an index from one embedding space to another: plan, run, verify, switch.

The old index is read and never written to; the new one is another collection, whose name and metadata carry the space.
"""
