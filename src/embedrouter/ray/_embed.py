"""Embed a column of a dataset of Ray Data, with one router in each actor.

    dataset.map_batches(
        Embed,
        fn_constructor_kwargs={"router": "embedrouter.toml", "id": "id", "tag": "handbook"},
        batch_format="pyarrow",
        batch_size=2048,
        compute=ray.data.ActorPoolStrategy(size=4),
        num_cpus=0.25,
    )

An actor that is killed is started again by Ray, and its batch is repeated: what was answered is in the cache. Actors on
one machine share cache, ledger and budget through their files; on several machines, ``state="redis://…"`` in the
configuration shares them, and the limits of the rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from .._display import first_few, get_logger, shown_name
from ..calls import Refusal, without_refused
from ..errors import ConfigError
from ..retrieval.given_router import GivenRouter, as_router
from ..types import InputType, Vectors
from ..workers import Worker

FEW = 10
"""Rows that a message names."""
Batch = TypeVar("Batch")

logger = get_logger("embedrouter.ray")


class Embed:
    """Add a column of vectors to each batch, for ``ray.data.Dataset.map_batches``; all other columns stay as they are.

    With ``batch_format="pyarrow"`` the column has fixed-size lists, of float32 unless the model gives integers, and so
    have Parquet files. With ``"numpy"`` it is an array of shape ``(rows, dimensions)``.

    Each actor builds one router, and reads keys from its own environment (Ray's ``runtime_env={"env_vars": …}``). A
    router that is handed over loses its keys on the way.

    Args:
        router: the path of a TOML file, which each machine has; or its content, which travels
            (``tomllib.loads(text)``); the name of a model; models in a list; or a ``Router``.
        column: the texts.
        into: the new column.
        input_type: ``"document"``, or ``"query"`` for texts that search.
        tier: the lowest tier to accept; by default the router's.
        id: a column that names rows, for messages.
        tag: what the spending is booked under, in the ledger of the router: ``router.ledger.totals("tag")``,
            ``embedrouter stats --by tag``.
        skip_bad: whether rows that cannot be embedded are left out, and logged; otherwise they are an error.
        settings: arguments of ``Router``, where it is built here, such as ``state`` and ``budget``.

    Raises:
        ConfigError: a setting is wrong, or a machine lacks the file.
    """

    def __init__(
        self,
        router: GivenRouter,
        *,
        column: str = "text",
        into: str = "embedding",
        input_type: InputType = "document",
        tier: str | None = None,
        id: str | None = None,
        tag: str = "",
        skip_bad: bool = False,
        **settings: Any,
    ) -> None:
        _require_file(router)
        self._worker = Worker(as_router(router, settings), input_type, tier, tag)
        self.column, self.into, self.id, self.skip_bad = column, into, id, skip_bad

    def __call__(self, batch: Batch) -> Batch:
        """Return the batch with a column of vectors.

        Raises:
            ConfigError: the batch lacks a column, or has the new one already, or has another format.
            InvalidInputError: rows have no text that can be embedded; ``indices`` are positions in the batch.
            EmbedRouterError: an error of ``Router.embed``.
        """
        columns = columns_of(batch)
        for name in (self.column, *([self.id] if self.id else [])):
            if name not in columns.names:
                raise ConfigError(
                    f"The batch has no column {shown_name(name)}. Its columns are {', '.join(columns.names)}."
                )
        if self.into in columns.names:
            raise ConfigError(
                f"The batch has a column {shown_name(self.into)} already. Name another for the vectors: into=…."
            )
        texts = columns.values(self.column)

        def refuse(error: Refusal, rows: list[int]) -> None:
            bad = [rows[index] for index in error.indices]
            named = self._named(columns, bad)
            if not self.skip_bad:
                error.add_note(f"Rows: {named}. To leave such rows out: skip_bad=True.")
                raise error
            logger.warning("%d rows are left out, because they cannot be embedded: %s.", len(bad), named)

        kept, vectors = without_refused(
            range(columns.rows), lambda rows: self._vectors([texts[row] for row in rows]), refuse
        )
        result: Batch = columns.with_vectors(None if len(kept) == columns.rows else kept, self.into, vectors)
        return result

    def _vectors(self, texts: list[str]) -> Vectors:
        if not texts:
            return np.empty((0, self._worker.router.space.dimensions), np.float32)
        return self._worker.embed(texts).vectors

    def _named(self, columns: Columns, rows: Sequence[int]) -> str:
        """Return how a message names rows: by their ids, or by their positions in the batch."""
        if self.id is None:
            return first_few([f"{row} of this batch" for row in rows], FEW)
        ids = columns.values(self.id)
        return first_few([f"{self.id}={shown_name(str(ids[row]))}" for row in rows], FEW)


class Columns:
    """The columns of one batch.

    Attributes:
        names: of the columns.
        rows: how many there are.
        values: returns a column as Python values.
        with_vectors: returns the batch with a column more; given the rows that stay, without the others.
    """

    __slots__ = ("names", "rows", "values", "with_vectors")

    def __init__(
        self,
        names: Sequence[str],
        rows: int,
        values: Callable[[str], list[Any]],
        with_vectors: Callable[[list[int] | None, str, Vectors], Any],
    ) -> None:
        self.names, self.rows, self.values, self.with_vectors = names, rows, values, with_vectors


def columns_of(batch: Any) -> Columns:
    """Return the columns of a table of pyarrow, or of a mapping of arrays.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(batch, Mapping):

        def with_arrays(kept: list[int] | None, into: str, vectors: Vectors) -> dict[str, Any]:
            return {**(batch if kept is None else {name: batch[name][kept] for name in batch}), into: vectors}

        rows = max((len(column) for column in batch.values()), default=0)
        return Columns(list(batch), rows, lambda name: batch[name].tolist(), with_arrays)
    if hasattr(batch, "append_column") and hasattr(batch, "column_names"):

        def with_list(kept: list[int] | None, into: str, vectors: Vectors) -> Any:
            rows = batch if kept is None else batch.take(np.array(kept, np.int64))
            return rows.append_column(into, fixed_size_lists(vectors))

        return Columns(batch.column_names, batch.num_rows, lambda name: batch[name].to_pylist(), with_list)
    raise ConfigError(
        f"Batches are tables of pyarrow or mappings of arrays, not {type(batch).__name__}: "
        'map_batches(…, batch_format="pyarrow").'
    )


def fixed_size_lists(vectors: Vectors) -> Any:
    """Return vectors as an array of pyarrow, of lists of one size; the numbers are not copied."""
    import pyarrow

    return pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.reshape(-1)), vectors.shape[1])


def _require_file(router: object) -> None:
    """Refuse the path of a configuration that this machine does not have."""
    is_path = isinstance(router, Path) or (isinstance(router, str) and router.endswith(".toml"))
    if is_path and not Path(str(router)).expanduser().exists():
        raise ConfigError(
            f"The machine of this actor has no file {router} (in {Path.cwd()}). Hand over its content, which travels: "
            "router=tomllib.loads(Path(…).read_text()). Or have Ray bring the folder: runtime_env={'working_dir': …}."
        )
