"""PostgreSQL with pgvector: collections of LangChain's ``PGVector``, tables of both frameworks' ``PGVectorStore``."""

from ._collection import LangChainCollection
from ._database import PostgresDatabase
from ._stores import find as find_postgres
from ._table import PostgresTable

__all__ = ["LangChainCollection", "PostgresDatabase", "PostgresTable", "find_postgres"]
