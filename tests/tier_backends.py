"""Three models of one space, one for each tier, that note what they embed."""

from __future__ import annotations

from embedrouter import Model
from embedrouter.testing import FakeBackend

__all__ = ["TierBackends"]


class TierBackends:
    """The backends by tier, the cheapest first."""

    def __init__(self) -> None:
        self.backends = {name: FakeBackend() for name in ("low", "medium", "high")}

    def models(self) -> list[Model]:
        """Declare a model of each backend."""
        return [
            backend.model(f"fake:{name}", tier=name, price=price)
            for (name, backend), price in zip(self.backends.items(), "123", strict=True)
        ]

    def embedded(self, input_type: str = "query") -> set[tuple[str, str]]:
        """Return each embedded text of this input type with the tier that embedded it."""
        return {
            (name, text)
            for name, backend in self.backends.items()
            for call in backend.calls
            if call.input_type == input_type
            for text in call.texts
        }
