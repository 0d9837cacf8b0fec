"""``embedrouter demo``: index real texts in both frameworks, ask questions, and show cost and savings.

The texts are the docstrings of the standard library, or a folder of the user; the model is wordllama unless another is
named, so that neither a key nor the network is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._options import AsJson, CacheFolder, ConfigFile, ModelName, NoCache, Yes, exclusive, named_config


def command(
    texts: Annotated[
        Path | None,
        typer.Argument(metavar="FOLDER", help="A folder of text files; by default Python's own docstrings."),
    ] = None,
    ask: Annotated[
        list[str] | None, typer.Option(help="A question instead of the prepared ones; can be repeated.")
    ] = None,
    model: ModelName = None,
    config: ConfigFile = None,
    cache: CacheFolder = None,
    no_cache: NoCache = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Index only the first texts.")] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Index real texts in LangChain and LlamaIndex, ask questions, and show what was cached, computed and paid.

    Run it twice: the second run is answered from the cache.
    """
    exclusive(model=model, config=config)
    from ._demo_output import DemoOutput
    from ._demo_run import run_demo
    from ._routers import build_router, choose_cache

    router, cache_location = build_router(model, named_config(config), choose_cache(cache, no_cache))
    run_demo(router, cache_location, texts, ask, limit, yes, DemoOutput(as_json=as_json))
