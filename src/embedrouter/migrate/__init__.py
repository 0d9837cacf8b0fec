"""Move an index from one embedding space to another: plan, run, verify, switch.

    from embedrouter import migrate

    plan = migrate.plan("./chroma", "openai:text-embedding-3-small", collection="handbook")
    print(plan)                      # texts, tokens, dollars, hours, disk; nothing was called
    migrate.run(plan)                # fills handbook--text-embedding-3-small-1536
    print(migrate.verify(plan))
    migrate.switch(plan)             # and back: migrate.switch(plan, undo=True)
    migrate.drop_old(plan)

The old index is read and never written to; the new one is another collection, whose name and metadata carry the space.
A run that was stopped goes on, pays nothing twice and writes no row twice. In asynchronous code each function belongs
in a thread: ``await asyncio.to_thread(migrate.run, plan)``.
"""

from ._check import Check, Verification
from ._migration import Migration as Migration
from ._migration import migration as migration
from ._migration import require_unswitched as require_unswitched
from ._plan import Plan, plan
from ._run import Moved, run
from ._switch import Switched, drop_old, switch
from ._switch import described as described
from ._switch import require_droppable as require_droppable
from ._verify import verify

__all__ = ["Check", "Moved", "Plan", "Switched", "Verification", "drop_old", "plan", "run", "switch", "verify"]
