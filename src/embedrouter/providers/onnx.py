"""Models of sentence-transformers without torch: onnxruntime, tokenizers and the graph in the model's ``onnx`` folder.

Promises:

- ``describe`` reads JSON files and opens no socket, as that of ``sentence_transformers`` does, with the same space for
  the same folder or model of the hub. Prompts, pooling, dense layers, normalisation and the longest input are read from
  the model's own files.
- ``file=`` names the graph within the folder; when left out, ``onnx/model.onnx``, then ``model.onnx``. Graphs that are
  named ``model``, or ``model_O1`` to ``model_O3`` (optimised), are in float32. Any other, such as ``model_qint8_avx2``,
  has shorter numbers: it is a space of its own, unless the user has measured it and says ``space=``. A graph that
  onnxruntime's own quantiser wrote is refused under an exact name.
- That a repository's graph has the weights of its other files is the word of its maker, which nothing here compares. So
  the file is part of the fingerprint, and no vector is taken from the cache for one that torch made.
- Of a model of the hub that is not on this machine, the graph and the small files are downloaded, not the weights.
- No text is cut.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from .._display import get_logger
from .._process import PerProcess
from ..errors import ConfigError, UnavailableError
from ..models import Catalogue, Model
from ..types import Answer, Candidate, InputType, TokenCounts
from . import Backend, Description, needs_extra
from ._encoder import FEEDS, Encoder, Reader
from ._last_modules import WHOLE, Last, read_last
from ._local import finished, require_within
from ._model_files import CACHE, chosen_prompts, locate, matches_folder, module_folders, read_facts
from ._model_files import describe as describe_files
from ._runtimes import open_graph, version_of

logger = get_logger("embedrouter.models")

EXTRA = "onnx"
USUAL = ("onnx/model.onnx", "model.onnx")
EXACT = ("model.onnx", "model_O[123].onnx")
"""Names of graphs in float32."""
QUANTISER = "onnx.quantize"
"""The producer that onnxruntime's quantiser writes into graphs."""
STATES = ("token_embeddings", "last_hidden_state")
"""Names of the output with a vector for each token."""
SMALL = ("*.json", "*.txt", "*.model", "*_Dense/*", "*_LayerNorm/*")
"""The files beside the graph that are downloaded."""


def describe(model: Model, catalogue: Catalogue, dimensions: int | None) -> Description:
    """Return the catalogue's facts, or those of the model's files.

    Raises:
        ConfigError: the files are not on this machine or do not suffice, or a setting is for another provider.
    """
    for name in ("client", "trust_remote_code", "device"):
        if getattr(model, name):
            raise ConfigError(f"{model.name} is computed by onnxruntime on the processor. Leave {name}= out.")
    known = describe_files(replace(model, space=None), catalogue, dimensions)
    name = _file(model, known.files)
    space, in_catalogue = known.card.space, bool(known.card.checked)
    if not is_exact(name):
        space = model.space or f"{space}+{PurePosixPath(name).stem}"
    elif not in_catalogue:
        space = model.space or space
    card = replace(known.card, model=model.name, space=space)
    return replace(known, card=card, identity=f"{known.identity}#{name}")


def is_exact(file: str) -> bool:
    """Return whether a graph is one of float32, by the names that optimum and sentence-transformers write."""
    name = PurePosixPath(file).name
    return any(fnmatch(name, pattern) for pattern in EXACT)


def _file(model: Model, folder: Path | None) -> str:
    """Return the graph's path within the folder.

    Raises:
        ConfigError: there is no such file.
    """
    if model.file is not None and (PurePosixPath(model.file).is_absolute() or ".." in PurePosixPath(model.file).parts):
        raise ConfigError(f"{model.name}: file={model.file!r} must be a path within the model's folder.")
    names = USUAL if model.file is None else (PurePosixPath(model.file).as_posix(),)
    if folder is None:
        return names[0]
    if (found := next((name for name in names if (folder / name).is_file()), None)) is not None:
        return found
    there = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.onnx"))
    advice = (
        f"It has {', '.join(there)}: choose one with file=…."
        if there
        else "Export one with sentence-transformers (SentenceTransformer(…, backend='onnx').save(…))."
    )
    raise ConfigError(f"{model.name}: there is no {' or '.join(names)} in {folder}. {advice}")


@dataclass(frozen=True, slots=True)
class _Loaded:
    encoder: Encoder
    prompts: dict[InputType, str]
    limit: float
    commit: str | None


@dataclass(slots=True, eq=False)
class _State:
    lock: threading.Lock = field(default_factory=threading.Lock)
    loaded: _Loaded | None = None
    counting: tuple[Reader, dict[InputType, str]] | None = None


class OnnxBackend(Backend):
    """Embeds texts with onnxruntime, in this process. One call at a time: it uses all cores."""

    def __init__(self, model: Model, known: Description, candidate: Candidate) -> None:
        self._model, self._known, self._candidate = model, known, candidate
        self._states = PerProcess(_State)

    def embed(self, texts: Sequence[str], input_type: InputType, *, timeout: float) -> Answer:
        """Embed texts, 32 in one batch. ``timeout`` has no effect.

        Raises:
            InputRejectedError: a text is over the model's limit, or has no token in the model's vocabulary.
            UnavailableError: the model cannot be downloaded or loaded.
            ConfigError: a package is missing, or the files are not those that were described.
        """
        state = self._states.get()
        with state.lock:
            if state.loaded is None:
                state.loaded = self._load()
            loaded = state.loaded
            prompt = loaded.prompts[input_type]
            require_within(self._model, texts, prompt, loaded.limit, loaded.encoder.reader.count)
            vectors = loaded.encoder.encode(texts, prompt)
        answer = finished(self._model, vectors, self._candidate.space.dimensions)
        return replace(answer, model=loaded.commit)

    def count(self, texts: Sequence[str], input_type: InputType) -> TokenCounts:
        """Count with the model's own tokenizer, special tokens and prompt included; else estimate."""
        state = self._states.get()
        if state.counting is None:
            if (files := self._known.files) is None and state.loaded is None:
                return super().count(texts, input_type)
            if state.loaded is not None:
                state.counting = state.loaded.encoder.reader, state.loaded.prompts
            elif files is not None:
                facts = read_facts(self._model, files)
                with needs_extra(self._model, EXTRA):
                    reader = Reader.of(module_folders(files)[0][1], lower=facts.lower)
                state.counting = reader, chosen_prompts(self._model, facts.prompts)
        assert state.counting is not None
        reader, prompts = state.counting
        return TokenCounts(reader.count([prompts[input_type] + text for text in texts]), exact=True)

    @property
    def runtime(self) -> str:
        """What computes the vectors."""
        return f"onnx (onnxruntime {version_of('onnxruntime')})"

    def close(self) -> None:
        """Release the model's memory; the next call loads the model again."""
        state = self._states.get()
        state.loaded = state.counting = None

    def _load(self) -> _Loaded:
        model, known = self._model, self._known
        file = (known.identity or "").rpartition("#")[2]
        with needs_extra(model, EXTRA):
            import onnxruntime  # noqa: F401 - before anything is downloaded
        folder = known.files or self._download(file)
        if not matches_folder(model, replace(known, identity=(known.identity or "").rpartition("#")[0])):
            raise ConfigError(f"{folder} has changed since the router was built. Build the router again.")
        facts = read_facts(model, folder)
        width = facts.dimensions or known.card.dimensions
        if width != known.card.dimensions:
            raise ConfigError(f"{model.name} makes {width} dimensions, and {known.card.dimensions} were described.")
        encoder = self._open(folder, file, lower=facts.lower)
        limits = [limit for limit in (self._candidate.limits.input_tokens, facts.input_tokens) if limit]
        commit = None if known.files is not None else f"{locate(model)[0]}@{folder.name}"
        return _Loaded(encoder, chosen_prompts(model, facts.prompts), min(limits, default=math.inf), commit)

    def _open(self, folder: Path, file: str, *, lower: bool) -> Encoder:
        modules = module_folders(folder)
        try:
            graph = open_graph("onnx", folder / file)
            reader = Reader.of(modules[0][1], lower=lower)
            last = read_last(modules, self._known.card.dimensions)
        except (OSError, ValueError, LookupError) as error:
            raise ConfigError(f"{self._model.name} cannot be computed without torch: {error}.") from error
        except Exception as error:  # onnxruntime's own, which have no base of their own
            raise UnavailableError(
                f"{folder / file} cannot be loaded: {error}", model=self._model.name, retryable=False
            ) from error
        if graph.producer == QUANTISER and is_exact(file):
            raise ConfigError(
                f"{self._model.name}: {file} was quantised, and its name says that it is exact. Rename it, such as "
                "model_qint8.onnx, and choose it with file=…: its vectors are a space of their own."
            )
        if unknown := set(graph.inputs) - set(FEEDS):
            raise ConfigError(f"{self._model.name}: {file} needs the input {min(unknown)}, which no text has.")
        states = [name for name in graph.outputs if name in STATES]
        if not states and WHOLE in graph.outputs:
            return Encoder(graph, reader, Last(last.dimensions, (), ()), WHOLE)
        return Encoder(graph, reader, last, next(iter([*states, *graph.outputs])))

    def _download(self, file: str) -> Path:
        name, _ = locate(self._model)
        logger.info("%s is not on this machine yet and will be downloaded from huggingface.co", name)
        with needs_extra(self._model, EXTRA):
            from huggingface_hub import snapshot_download
        try:
            folder = snapshot_download(
                name,
                revision=self._model.revision,
                cache_dir=os.environ.get(CACHE),
                allow_patterns=[file, f"{file}_data", f"{file}.data", *SMALL],
            )
        except (OSError, ValueError) as error:  # the hub's errors are among these
            raise UnavailableError(f"cannot be downloaded: {error}", model=self._model.name, retryable=False) from error
        return Path(folder)


create = OnnxBackend
