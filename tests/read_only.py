"""Folders that may only be read, and disks that are full, as real mounts."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def read_only(folder: Path) -> Iterator[Path]:
    """Give a folder that may only be read: a second, read-only mount of ``folder``, or without root the folder itself.

    Other processes may still write to ``folder`` where the result is a mount.
    """
    if os.geteuid() != 0:
        files = [folder, *folder.rglob("*")]
        modes = [file.stat().st_mode for file in files]
        for file, mode in zip(files, modes, strict=True):
            file.chmod(mode & 0o555)
        try:
            yield folder
        finally:
            for file, mode in zip(files, modes, strict=True):
                file.chmod(mode)
        return
    place = folder.with_name(f"{folder.name}-read-only")
    place.mkdir()
    with mounted("--bind", str(folder), str(place)):
        subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
        yield place


@contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """Give a folder on a disk of its own, such as of ``"1m"``."""
    place.mkdir()
    with mounted("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)):
        yield place


def fill_up(disk: Path, leave: int = 0) -> None:
    """Leave no more than so many bytes, in a file named ``rest``."""
    size = shutil.disk_usage(disk).free - leave
    (disk / "rest").write_bytes(bytes(size))


@contextmanager
def mounted(*arguments: str) -> Iterator[None]:
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"there is no mount here: {error}")
    if done.returncode:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", arguments[-1]], check=True)
