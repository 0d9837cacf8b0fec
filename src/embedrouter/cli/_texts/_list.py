"""``--list``: which files are taken and how many texts each holds, and what is left out."""

from itertools import groupby

from ..._display import counted
from .._console import Output
from ._texts import Texts


def list_texts(texts: Texts, output: Output) -> None:
    """Print the files in their order, with the number and the length of their texts, and what is left out."""
    files = []
    for name, items in groupby(texts, key=lambda item: item.file):
        count = characters = 0
        for item in items:
            count += 1
            characters += len(item.text)
        files.append({"file": name, "texts": count, "characters": characters})
        output.line(f"{name}: {counted(count, 'text')}, {counted(characters, 'character')}")
    total = sum(int(file["texts"]) for file in files)
    texts.skipped.show(output, every=True)
    output.line(f"{counted(total, 'text')} in {counted(len(files), 'file')}.")
    output.json({"files": files, "texts": total, "skipped": texts.skipped.rows()})
