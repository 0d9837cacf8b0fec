"""``embedrouter.ray.Embed`` on batches as Ray Data hands them over; a real cluster is in ``test_ray_cluster.py``."""

from __future__ import annotations

import io
import logging
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedrouter import Budget, Model, Router
from embedrouter.errors import BudgetExceededError, ConfigError, InputRejectedError, InvalidInputError
from embedrouter.ray import Embed
from embedrouter.testing import FakeBackend


def router(**settings: Any) -> Router:
    fake = FakeBackend(dimensions=8)
    return Router([fake.model(price="1")], **{"cache": None, "ledger": ":memory:"} | settings)


def table(*texts: str | None, **columns: Any) -> pa.Table:
    return pa.table({"id": [f"row-{n}" for n in range(len(texts))], "text": list(texts), **columns})


def test_a_table_gets_fixed_size_lists_of_float32_and_keeps_its_other_columns() -> None:
    """Parquet, too: a variable list costs an offset for each row, and loses the number of dimensions."""
    given = table("a", "b", "a", rank=pa.array([1, 2, 3], pa.int16()))

    embedded = Embed(router())(given)

    assert embedded.schema.field("embedding").type == pa.list_(pa.float32(), 8)
    assert embedded.drop_columns("embedding").equals(given)
    expected = router().embed(["a", "b", "a"], input_type="document").vectors
    assert np.array_equal(np.array(embedded["embedding"].to_pylist(), np.float32), expected)
    file = io.BytesIO()
    pq.write_table(embedded, file)
    assert pq.read_table(file).schema.field("embedding").type == pa.list_(pa.float32(), 8)


def test_a_mapping_of_arrays_gets_an_array() -> None:
    given = {"passage": np.array(["a", "b"], object), "n": np.arange(2)}

    embedded = Embed(router(), column="passage", into="vector", input_type="query")(given)

    assert np.array_equal(embedded["vector"], router().embed(["a", "b"], input_type="query").vectors)
    assert {name: embedded[name] for name in given} == given


def test_a_batch_without_rows_has_the_column_too() -> None:
    assert Embed(router())(table()).schema.field("embedding").type == pa.list_(pa.float32(), 8)


@pytest.mark.parametrize("id", [None, "id"])
def test_an_error_names_the_rows_and_no_text(id: str | None) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Embed(router(), id=id)(table("fine", "", None, "the secret text"))

    (note,) = refused.value.__notes__
    assert note.startswith("Rows: " + ("id='row-1', id='row-2'." if id else "1 of this batch, 2 of this batch."))
    assert refused.value.indices == (1, 2)
    assert "secret" not in f"{refused.value} {note}"
    assert pickle.loads(pickle.dumps(refused.value)).__notes__ == [note]  # on its way out of the actor


def test_bad_rows_are_left_out_where_that_was_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "embedrouter.ray"):
        embedded = Embed(router(), id="id", skip_bad=True)(table("a", "", "b", None))
        none_left = Embed(router(), skip_bad=True)(table("", None))

    assert embedded["id"].to_pylist() == ["row-0", "row-2"]
    assert none_left.num_rows == 0
    assert "2 rows are left out, because they cannot be embedded: id='row-1', id='row-3'." in caplog.text


def test_a_text_that_the_provider_refuses_is_named_by_its_row_too() -> None:
    fake = FakeBackend(outcomes=[InputRejectedError("no", indices=[1]), None, None, None, None])
    refusing = Router([fake.model()], cache=None, ledger=":memory:")

    embedded = Embed(refusing, skip_bad=True, id="id")(table("a", "b", "c"))

    assert embedded["id"].to_pylist() == ["row-0", "row-2"]


@pytest.mark.parametrize(
    ("settings", "batch", "story"),
    [
        ({"column": "body"}, table("a"), r"no column 'body'\. Its columns are id, text"),
        ({"id": "key"}, table("a"), r"no column 'key'"),
        ({"into": "id"}, table("a"), r"a column 'id' already\. Name another"),
        ({}, [["a"]], r'not list: map_batches\(…, batch_format="pyarrow"\)'),
    ],
)
def test_what_does_not_fit_is_refused_before_a_request(settings: Any, batch: Any, story: str) -> None:
    fake = FakeBackend()
    with pytest.raises(ConfigError, match=story):
        Embed(Router([fake.model()], cache=None, ledger=":memory:"), **settings)(batch)
    assert not fake.calls


def test_the_router_is_built_from_a_file_its_content_or_names(tmp_path: Path) -> None:
    file = tmp_path / "embedrouter.toml"
    file.write_text('cache = false\nledger = ":memory:"\nmodels = ["wordllama:l2_supercat_256"]')
    content = {"cache": False, "ledger": ":memory:", "models": ["wordllama:l2_supercat_256"]}
    given = table("a cat", "a dog")

    results = [
        Embed(file)(given),
        Embed(str(file))(given),
        Embed(content)(given),
        Embed("wordllama:l2_supercat_256", cache=None, ledger=":memory:")(given),
    ]

    assert all(result.equals(results[0]) for result in results)


def test_a_machine_without_the_file_says_how_its_content_travels() -> None:
    with pytest.raises(ConfigError, match=r"no file nowhere\.toml .*tomllib\.loads"):
        Embed("nowhere.toml")


def test_a_router_that_travels_to_an_actor_loses_its_keys() -> None:
    """Ray pickles what ``fn_constructor_kwargs`` has into its object store."""
    own = Router([Model("openai:text-embedding-3-small", api_key="sk-secret")], cache=None, ledger=":memory:")

    assert b"sk-secret" not in pickle.dumps({"router": own})


def test_the_spending_is_booked_under_the_tag_and_written_after_each_batch(tmp_path: Path) -> None:
    """Ray kills actors; what is only in memory would be lost."""
    own = router(cache=tmp_path, ledger=tmp_path / "ledger.db")
    embed = Embed(own, tag="job")
    embed(table("a", "b"))
    embed(table("a", "b"))

    read = router(cache=tmp_path, ledger=tmp_path / "ledger.db").ledger.totals("tag")["job"]
    assert (read.texts, read.saved_texts) == (2, 2)


def test_a_budget_that_is_used_up_ends_the_job_and_keeps_what_was_paid(tmp_path: Path) -> None:
    fake = FakeBackend()
    batches = [table(*(f"text {number}" for number in range(first, first + 10))) for first in range(0, 50, 10)]
    settings: dict[str, Any] = {"cache": tmp_path, "ledger": tmp_path / "ledger.db"}
    limited = Embed(Router([fake.model(price="1")], budget=Budget(total="0.00005"), **settings))
    with pytest.raises(BudgetExceededError):
        list(map(limited, batches))
    assert 0 < len(fake.calls) < 5

    again = Embed(Router([fake.model(price="1")], **settings))
    for batch in batches:
        again(batch)

    sent = [text for call in fake.calls for text in call.texts]
    assert len(sent) == len(set(sent)) == 50


def test_importing_it_imports_no_ray() -> None:
    code = "import sys, embedrouter.ray; sys.exit(sorted({'ray', 'pyarrow', 'torch'} & set(sys.modules)) or 0)"
    subprocess.run([sys.executable, "-c", code], check=True)
