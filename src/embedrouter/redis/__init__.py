"""What the routers of many processes and machines share, on a Redis or Valkey server.

``RedisState`` names the server, for ``Router(…, state=…)``; its ``cache()`` is a store of vectors for ``cache=``.
"""

from ._cache import RedisCache
from ._opening import SERVERS, open_caches
from ._state import RedisState

__all__ = ["RedisCache", "RedisState"]
