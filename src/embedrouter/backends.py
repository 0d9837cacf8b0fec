"""The former home of ``embedrouter.providers.Backend``, which stays importable here."""

from .models import Backend

__all__ = ["Backend"]
