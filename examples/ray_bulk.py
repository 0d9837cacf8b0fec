"""Embed a folder of Parquet files with Ray Data, into Parquet files with vectors.

    python examples/ray_bulk.py documents/ vectors/ --config embedrouter.toml --actors 4

Each file becomes a folder of the same name, which appears when it is complete. Stop the program, or let it be killed,
and run it again: complete files are left out, and of the others the texts that were answered are in the cache, so that
only the rest is paid for. At the end, and after an error, it prints what the job has cost in all its runs.

On one machine the actors share cache, ledger and budget through their files. On several, the configuration needs
``state = "redis://…"``, the folders have to be on a file system that all of them have, and the keys in the environment
of each. To use a cluster that is running, set RAY_ADDRESS.

Needs the extra ray, and the keys of the configuration's models.
"""

import argparse
import os
import shutil
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
import ray.data

from embedrouter import Router
from embedrouter.ray import Embed


def main() -> None:
    parser = argparse.ArgumentParser(description="Embed Parquet files with Ray Data.")
    parser.add_argument("documents", type=Path, help="a folder of Parquet files")
    parser.add_argument("vectors", type=Path, help="the folder to write")
    parser.add_argument("--config", type=Path, default=Path("embedrouter.toml"))
    parser.add_argument("--column", default="text", help="the texts")
    parser.add_argument("--id", help="a column that names rows in messages")
    parser.add_argument("--actors", type=int, default=2, help="at most as many as a file has batches")
    parser.add_argument("--batch-size", type=int, default=2048, help="rows that an actor is given at once")
    parser.add_argument("--cpus", type=float, default=0.25, help="of an actor; for a local model, whole ones")
    parser.add_argument("--skip-bad", action="store_true", help="leave rows out that cannot be embedded")
    given = parser.parse_args()
    router = Router.from_config(given.config)
    job = f"ray:{given.vectors.name}"
    embed = {
        "router": given.config.absolute(),  # a path: each machine needs the file; relative folders in it are beside it
        "column": given.column,
        "id": given.id,
        "tag": job,
        "skip_bad": given.skip_bad,
    }
    given.vectors.mkdir(parents=True, exist_ok=True)
    files = sorted(given.documents.glob("*.parquet"))
    left = [file for file in files if not (given.vectors / file.name).exists()]
    print(f"{len(files)} files, {len(files) - len(left)} of them complete.", flush=True)
    try:
        for file in left:
            unfinished, complete = given.vectors / f".{file.name}", given.vectors / file.name
            shutil.rmtree(unfinished, ignore_errors=True)
            (
                ray.data.read_parquet(str(file.absolute()))
                .repartition(target_num_rows_per_block=given.batch_size)
                .map_batches(
                    Embed,
                    fn_constructor_kwargs=embed,
                    batch_format="pyarrow",
                    batch_size=given.batch_size,
                    compute=ray.data.ActorPoolStrategy(size=given.actors),
                    num_cpus=given.cpus,
                )
                .write_parquet(str(unfinished.absolute()))
            )
            unfinished.rename(complete)
            print(f"{file.name} is complete. {bill(router, job)}", flush=True)
    except ray.exceptions.RayTaskError as error:
        raise SystemExit(f"{error}\nWhat was answered is kept. Then the same command pays for the rest only.") from None
    finally:
        print(bill(router, job))


def bill(router: Router, job: str) -> str:
    """Return what all runs of the job have cost, as the ledger has it."""
    spent = router.ledger.totals("tag", tag=job).get(job)
    if spent is None:
        return "Nothing was paid."
    perhaps = f", perhaps ${spent.unconfirmed} more for requests without an answer" if spent.unconfirmed else ""
    return f"{spent.texts:,} texts, {spent.tokens:,} tokens: ${spent.cost}{perhaps}; saved: ${spent.saved}."


if __name__ == "__main__":
    main()
