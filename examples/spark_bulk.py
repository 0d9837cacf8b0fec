"""Embed a folder of Parquet files with Spark, into Parquet files with vectors.

    spark-submit examples/spark_bulk.py documents/ vectors/ embedrouter.toml

``mapInPandas`` gives each task an iterator of batches, so one router serves all of them. Tasks of one machine share
cache, ledger and budget through their files; on several machines the configuration needs ``state = "redis://…"``, and
keys have to be in the environment of the executors (``spark.executorEnv.OPENAI_API_KEY``). A task that Spark repeats
pays for nothing twice, because what was answered is in the cache.

Needs pyspark, pandas and pyarrow, Java, and the keys of the configuration's models.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql.types import ArrayType, FloatType, StructType

import embedrouter
from embedrouter import Router

documents, vectors, config = (Path(name).absolute() for name in sys.argv[1:])


def embed(batches: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    with Router.from_config(config) as router, embedrouter.tag(f"spark:{vectors.name}"):
        for batch in batches:
            result = router.embed(batch["text"], input_type="document")
            yield batch.assign(embedding=list(result.vectors))


spark = SparkSession.builder.appName("embed").getOrCreate()
spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", 2048)
given = spark.read.parquet(str(documents))
schema = StructType([*given.schema.fields]).add("embedding", ArrayType(FloatType(), containsNull=False))
given.mapInPandas(embed, schema).write.mode("overwrite").parquet(str(vectors))
with Router.from_config(config) as router:
    print(f"{spark.read.parquet(str(vectors)).count():,} rows. Spent: {router.ledger.totals('tag')}")
spark.stop()
