"""``embedrouter compare``: which model is worth its price, on one's own documents and queries."""

from ._command import command as command
