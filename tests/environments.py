"""Environments of other programs, made once and remembered: the benchmarks' peers, and real servers for the tests.

    python -m tests.environments tests/real_servers/litellm.txt …

makes them beforehand, with the standard library alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "embedrouter-environments"
"""As it is when the tests are collected; tests have folders of their own later."""


def environment(requirements: Path) -> Path:
    """Return the folder of a virtual environment, made if it is not there yet (some minutes, and the network)."""
    folder = _folder(requirements)
    complete = folder / "complete"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be making it
        if not complete.exists():
            shutil.rmtree(folder, ignore_errors=True)
            print(f"\nInstalling {requirements} in {folder} …", flush=True)
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)]
            subprocess.run([interpreter(folder), *install], check=True)
            complete.touch()
    return folder


def ready(requirements: Path) -> Path | None:
    """Return the folder of a virtual environment that was made beforehand, or nothing."""
    folder = _folder(requirements)
    return folder if (folder / "complete").exists() else None


def _folder(requirements: Path) -> Path:
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    return CACHE / f"{requirements.stem}-{wanted}"


def interpreter(folder: Path) -> str:
    """Return the Python of a virtual environment."""
    return str(Path(place(folder, "scripts")) / ("python.exe" if os.name == "nt" else "python"))


def place(folder: Path, name: str) -> str:
    """Return a folder of a virtual environment, by its name in ``sysconfig``."""
    return sysconfig.get_path(name, "venv", vars={"base": str(folder), "platbase": str(folder)})


if __name__ == "__main__":
    for name in sys.argv[1:]:
        environment(Path(name))
