"""What the routers of many processes and machines share, on a Redis or Valkey server.

``RedisState`` names the server, for ``Router(…, state=…)``.
"""

from ._state import RedisState

__all__ = ["RedisState"]
