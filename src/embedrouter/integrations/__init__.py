"""Adapters for the other places that take an embedder: one module and one extra for each, of the same name.

``chroma``, ``lancedb``, ``haystack``, ``dspy``, ``sklearn`` (which BERTopic takes too) and ``txtai``. A module imports
its library; this folder imports none.
"""
