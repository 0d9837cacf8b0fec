"""Events: what happens in a router, as typed values for ``Router(on_event=…)`` and for the log.

    from embedrouter.events import CircuitOpened, Event

    def count(event: Event) -> None:
        if isinstance(event, CircuitOpened):
            alarms.inc(model=event.model)

    router = Router(["openai:text-embedding-3-small"], on_event=count)

Each event is logged by its class's logger at its class's level, with its fields as ``extra``. No event contains a text,
a vector or a key. ``docs/events.md`` lists the events and says more.
"""

from ._calls import (
    BatchCollected,
    BatchSubmitted,
    CallBegan,
    CallBilled,
    CallEnded,
    Degraded,
    FailedOver,
    RequestAnswered,
    RequestFailed,
    RequestRetried,
    RequestSent,
    RequestShared,
    Share,
)
from ._event import Event, numbered_call
from ._kinds import (
    BillImplausible,
    BookingsLost,
    BudgetRefused,
    CacheFailed,
    CacheRowsDamaged,
    CircuitClosed,
    CircuitOpened,
    IndexUnrecorded,
    LedgerFailed,
    LimitLearned,
    LimitWaited,
    ModelChanged,
    SharedStateFailed,
    SpendingUnconfirmed,
)
from ._report import Events
from ._watch import Watcher, unwatch, watch, watched, watchers

__all__ = [
    "BatchCollected",
    "BatchSubmitted",
    "BillImplausible",
    "BookingsLost",
    "BudgetRefused",
    "CacheFailed",
    "CacheRowsDamaged",
    "CallBilled",
    "CallEnded",
    "CircuitClosed",
    "CircuitOpened",
    "Degraded",
    "Event",
    "FailedOver",
    "IndexUnrecorded",
    "LedgerFailed",
    "LimitLearned",
    "LimitWaited",
    "ModelChanged",
    "RequestAnswered",
    "RequestFailed",
    "RequestRetried",
    "RequestSent",
    "RequestShared",
    "SharedStateFailed",
    "SpendingUnconfirmed",
]
