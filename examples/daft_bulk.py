"""Embed a folder of Parquet files with Daft, into Parquet files with vectors.

    python examples/daft_bulk.py documents/ vectors/ embedrouter.toml

Each worker process builds one router. They share cache, ledger and budget through their files; on several machines the
configuration needs ``state = "redis://…"``. What was answered is in the cache: a second run pays for the rest only.

Needs daft, and the keys of the configuration's models.
"""

import sys
from pathlib import Path

import daft

import embedrouter
from embedrouter import Router

documents, vectors, config = (Path(name).absolute() for name in sys.argv[1:])
with Router.from_config(config) as router:
    dimensions = router.space.dimensions


@daft.cls(max_concurrency=2)
class Embed:
    def __init__(self) -> None:
        self.router = Router.from_config(config)

    @daft.method.batch(return_dtype=daft.DataType.fixed_size_list(daft.DataType.float32(), dimensions), batch_size=2048)
    def vectors(self, texts: daft.Series) -> daft.Series:
        with embedrouter.tag(f"daft:{vectors.name}"):
            result = self.router.embed(texts.to_pylist(), input_type="document")
        return daft.Series.from_numpy(result.vectors)


given = daft.read_parquet(f"{documents}/*.parquet")
embed = Embed()
given.with_column("embedding", embed.vectors(given["text"])).write_parquet(str(vectors), write_mode="overwrite")
with Router.from_config(config) as router:
    print(f"{daft.read_parquet(f'{vectors}/*.parquet').count_rows():,} rows. Spent: {router.ledger.totals('tag')}")
