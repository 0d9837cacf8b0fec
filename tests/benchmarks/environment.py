"""The two environments: ours is the one that runs the benchmarks, the peers' is made once and remembered."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import platformdirs

import embedrouter

REQUIREMENTS = Path(__file__).parent / "peers.txt"


def peers_folder() -> Path:
    """Return the folder of the peers' environment, made if it is not there yet (some minutes, and the network)."""
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = platformdirs.user_cache_path("embedrouter-benchmarks", appauthor=False) / wanted
    complete = folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        print(f"\nInstalling the peers in {folder} …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(REQUIREMENTS)]
        subprocess.run([interpreter(folder), *install], check=True)
        complete.touch()
    return folder


def interpreter(folder: Path) -> str:
    """Return the Python of a virtual environment."""
    return str(Path(_place(folder, "scripts")) / ("python.exe" if os.name == "nt" else "python"))


def variables(folder: Path) -> Mapping[str, str]:
    """Return what both environments are told.

    Both find the tokenizer's vocabulary that LlamaIndex ships, because `langchain-openai` would download it; nothing
    else may reach the network. And both keep compiled code, as is usual: imports would compile our own each time.
    """
    return {
        "TIKTOKEN_CACHE_DIR": str(Path(_place(folder, "purelib")) / "llama_index/core/_static/tiktoken_cache"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "HF_HUB_OFFLINE": "1",
        "NO_PROXY": "127.0.0.1",
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPATH": "",
    }


def ours() -> Mapping[str, str]:
    """Return what our environment is told besides: where the package under test is."""
    return {"PYTHONPATH": str(Path(embedrouter.__file__).parents[1])}


def _place(folder: Path, name: str) -> str:
    return sysconfig.get_path(name, "venv", vars={"base": str(folder), "platbase": str(folder)})
