"""A router in each of several processes: what each of them does with its texts, and processes on one machine.

``embedrouter.ray`` has the same worker in each actor of a cluster.
"""

from ._processes import Processes, shares
from ._worker import Worker

__all__ = ["Processes", "Worker", "shares"]
