"""``embedrouter embed``: embed texts, and write the vectors to a file or into a vector store.

Texts are read, embedded and written in chunks, so that memory holds one chunk. Vectors are in the cache before they are
written: a run that is stopped leaves no half file under the final name, and the next run pays for nothing twice.
"""

import time
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from .._display import counted, data_size
from ..spending import tag as booked_under
from ..tiered import default_tier
from ..types import dollars
from ._batch import PollInterval, collect_batches
from ._console import Output, complain
from ._options import AsJson, BatchAndWait, InputTypeName, RouterOptions, TagName, TierName, Yes, expand_bundles
from ._routers import cache_location, find_router, router_at_tier
from ._run import Run
from ._targets import STDOUT, ids_beside, is_file, target
from ._texts import TextOptions, Texts, list_texts


@expand_bundles
def command(
    source: TextOptions,
    router_options: RouterOptions,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FILE|STORE",
            help="A .parquet, .jsonl, .jsonl.gz or .npy file, - for JSON lines on stdout, or a store: the folder or "
            "address of one, or a new one: chroma:DIR, faiss:DIR, lancedb:DIR, llama-index:DIR, qdrant:DIR.",
        ),
    ],
    collection: Annotated[
        str | None, typer.Option("--collection", metavar="NAME", help="The collection or table of a store.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a file of that name.")] = False,
    tier: TierName = None,
    tag: TagName = None,
    input_type: InputTypeName = "document",
    uncached: Annotated[
        bool, typer.Option("--uncached", help="Pay also where the cache cannot keep what is paid for.")
    ] = False,
    batch: BatchAndWait = False,
    every: PollInterval = 60.0,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Embed texts, and write ids, texts and vectors to a file or into a vector store. Texts are read as by estimate.

    Shows the cost and asks, unless nothing is to be paid. You can stop it at any time: the next run pays for no text
    twice. In a store a text replaces the one with its id. A store of another space is refused before anything is paid.
    """
    if to == STDOUT and as_json:
        raise typer.BadParameter("--json prints on stdout, and so does --to -.")
    output, began = Output(as_json=as_json or to == STDOUT, yes=yes), time.monotonic()
    with closing(Texts(source)) as texts:
        if source.list_only:
            list_texts(texts, output)
            return
        opening = target(to, collection, replace=replace)
        chosen = find_router(**asdict(router_options))
        router, own_tier = router_at_tier(chosen, tier, input_type)
        with router, booked_under(tag) if tag else nullcontext():
            run = Run(router, own_tier, input_type, texts, source, output)
            expected = run.expect(batch=batch)
            if expected.cost != 0 and not uncached:
                run.require_keeping()
            with opening(router, expected.texts) as sink:
                counted_rows = texts.skipped.rows()
                run.ask()
                sink.begin()
                if batch:
                    run.submit()
                    collect_batches(router, every, wait=True, output=output)
                facts = run.embed(lambda items, result: sink.write(items, result.vectors))
    if texts.skipped.rows() != counted_rows:  # texts that the provider has refused
        texts.skipped.show(output)
    usage = router.usage
    size = sum(path.stat().st_size for path in _files(to))
    parts = [counted(facts["done"], "text"), f"{facts['embedded']:,} new", f"{facts['recalled']:,} from the cache"]
    parts += [f"{facts['repeated']:,} repeated"] if facts["repeated"] else []
    parts += [dollars(usage.cost), *([f"saved {dollars(usage.saved)}"] if usage.saved else [])]
    place = "stdout" if to == STDOUT else f"{to}{f' ({data_size(size)})' if size else ''}"
    (complain if to == STDOUT else output.line)(f"{', '.join(parts)}: {place}")
    if to == STDOUT:
        return
    facts |= {"texts": expected.texts, "distinct": expected.unique, "expected": expected.cost, "usage": usage, "to": to}
    facts |= {"tier": tier or default_tier(chosen, input_type), "tag": tag or "", "input_type": input_type}
    facts |= {"cache": cache_location(router), "seconds": time.monotonic() - began, "skipped": texts.skipped.rows()}
    output.json({**facts, "bytes": size, "space": router.space.name, "dimensions": router.space.dimensions})


def _files(to: str) -> list[Path]:
    """Return the files that were written, none for a store."""
    path: Any = Path(to).expanduser()
    beside = [ids_beside(path)] if to.lower().endswith(".npy") else []
    return [path, *beside] if is_file(to) else []
