"""Embed a folder of Parquet files with Ray Data, into Parquet files with vectors.

    python examples/ray_bulk.py documents/ vectors/ --config embedrouter.toml --actors 4

Stop it, or let it be killed, and run it again: rows that are written are left out (Ray's own checkpoints, by the column
of ids), and texts that were answered are in the cache, so that only the rest is paid for. At the end, and after an
error, it prints what the job has cost in all runs, from the ledger.

On one machine the actors share cache, ledger and budget through their files. On several, the configuration needs
``state = "redis://…"``, and keys have to be in the environment of each machine.

Needs the extra ray, and the keys of the configuration's models.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
import ray.data
from ray.data.checkpoint import CheckpointConfig

from embedrouter import Router
from embedrouter.ray import Embed


def main() -> None:
    parser = argparse.ArgumentParser(description="Embed Parquet files with Ray Data.")
    parser.add_argument("documents", type=Path, help="a folder of Parquet files")
    parser.add_argument("vectors", type=Path, help="the folder to write")
    parser.add_argument("--config", type=Path, default=Path("embedrouter.toml"))
    parser.add_argument("--column", default="text", help="the texts")
    parser.add_argument("--id", default="id", help="a column whose values are different")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=2048, help="rows that an actor is given at once")
    parser.add_argument("--cpus", type=float, default=0.25, help="of an actor; for a local model, whole ones")
    given = parser.parse_args()
    documents, vectors, config = given.documents.absolute(), given.vectors.absolute(), given.config.absolute()
    job = f"ray:{vectors.name}"

    ray.init(num_cpus=None if "RAY_ADDRESS" in os.environ else os.cpu_count(), include_dashboard=False)
    ray.data.DataContext.get_current().checkpoint_config = CheckpointConfig(
        id_column=given.id, checkpoint_path=f"{vectors}.checkpoint", delete_checkpoint_on_success=False
    )
    dataset = ray.data.read_parquet(str(documents)).map_batches(
        Embed,
        fn_constructor_kwargs={"router": str(config), "column": given.column, "id": given.id, "tag": job},
        batch_format="pyarrow",
        batch_size=given.batch_size,
        compute=ray.data.ActorPoolStrategy(size=given.actors),
        num_cpus=given.cpus,
    )
    try:
        dataset.write_parquet(str(vectors))
        print(f"All rows are in {vectors}.")
    finally:
        with Router.from_config(config) as router:
            bill = router.ledger.totals("tag", tag=job).get(job)
        if bill is None:
            print("Nothing was paid.")
        else:
            print(f"{bill.texts:,} texts, {bill.tokens:,} tokens in {bill.requests:,} requests: ${bill.cost}")
            print(f"perhaps billed, because no answer came: ${bill.unconfirmed}; saved by the cache: ${bill.saved}")


if __name__ == "__main__":
    main()
