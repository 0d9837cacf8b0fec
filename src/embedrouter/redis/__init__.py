"""What the routers of many processes and machines share, on a Redis or Valkey server.

``RedisState`` names the server, for ``Router(…, state=…)``; its ``cache()`` is a store of vectors for ``cache=``.
"""

from ._books import RedisBooks
from ._cache import RedisCache
from ._durability import Durability, durability
from ._opening import SERVERS, open_caches
from ._server import SCHEMES
from ._state import RedisState

__all__ = ["RedisBooks", "RedisCache", "RedisState"]
