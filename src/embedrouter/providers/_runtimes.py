"""What computes a model's graph: torch, OpenVINO or onnxruntime, and which of them is the fastest here.

OpenVINO and onnxruntime read a file in ONNX format. Both compute in float32, also on processors whose own choice would
be a shorter number type, so that vectors differ from torch's by rounding alone.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Runtime: TypeAlias = Literal["openvino", "onnx"]

PACKAGES: Mapping[Runtime, str] = {"openvino": "openvino", "onnx": "onnxruntime"}
"""The package of each runtime, which is named as its distribution is."""

TELEMETRY = "openvino_telemetry"

FIRST_USE = Lock()
"""Two threads that are the first to hand arrays to OpenVINO wait for each other for ever (OpenVINO 2026.4)."""

GPU_DEVICES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd", "/dev/dri")
"""Device files of graphics processors on Linux (NVIDIA, Windows' Linux, AMD, others)."""

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
Outputs: TypeAlias = Mapping[str, NDArray[Any]]


class Graph(Protocol):
    """A loaded graph. One thread at a time may run it."""

    @property
    def inputs(self) -> Sequence[str]: ...
    @property
    def outputs(self) -> Sequence[str]: ...
    @property
    def producer(self) -> str:
        """The program that wrote the file; empty where the runtime does not say it."""
        ...

    def run(self, batches: Sequence[Arrays]) -> Iterator[Outputs]:
        """Compute the outputs of each batch, by name: a few on all cores, many side by side, each on one core.

        Side by side, no core waits for another within a batch.
        """
        ...


def installed() -> list[Runtime]:
    """Return the runtimes that are installed, the fastest first.

    Measured on an Intel processor with AVX-512, OpenVINO takes 0.95 times as long as onnxruntime for paragraphs, and
    1.2 times as long for one query.
    """
    order: list[Runtime] = ["openvino", "onnx"]
    if platform.machine().lower() not in ("x86_64", "amd64"):
        order.reverse()
    return [runtime for runtime in order if find_spec(PACKAGES[runtime]) is not None]


def version_of(package: str) -> str:
    """Return the installed version of a package; empty where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def on_cpu(device: str | None) -> bool:
    """Return whether sentence-transformers would run a model on the processor, given the declared device.

    Torch is asked, which takes seconds to import, only where there may be a graphics processor.
    """
    if device is not None:
        return device.partition(":")[0] == "cpu"
    if version_of("torch").endswith("+cpu"):
        return True
    if sys.platform == "linux" and not any(Path(name).exists() for name in GPU_DEVICES):
        return True
    from sentence_transformers.util import get_device_name

    return bool(get_device_name() == "cpu")


def open_graph(runtime: Runtime, file: Path) -> Graph:
    """Read a graph.

    Raises:
        ImportError: the runtime's package is missing.
        Exception: of the runtime's own: the file is broken, or has what the runtime cannot compute.
    """
    return _OpenVino(file) if runtime == "openvino" else _OnnxRuntime(file)


class _WithThreads:
    """An object of native code that has threads of its own.

    A forked child has not got them, and freeing the object there would wait for them for ever: so the child keeps it.
    """

    def __init__(self, native: Any) -> None:
        self._native, self._process = native, os.getpid()

    def __del__(self, getpid: Any = os.getpid, keep: Any = ctypes.pythonapi.Py_IncRef) -> None:
        if getattr(self, "_process", None) not in (None, getpid()):
            keep(ctypes.py_object(self._native))


def import_openvino() -> Any:
    """Import OpenVINO without its telemetry.

    ``import openvino`` itself reports to Google Analytics, from a forked process, and keeps an identifier in the user's
    home folder. It does neither where the package openvino-telemetry is missing, as for the time of this import.
    """
    modules: dict[str, Any] = sys.modules
    before = modules.get(TELEMETRY)
    modules[TELEMETRY] = None
    try:
        import openvino
    finally:
        modules[TELEMETRY] = before
        if before is None:
            del modules[TELEMETRY]
    return openvino


class _OpenVino(_WithThreads):
    producer = ""

    def __init__(self, file: Path) -> None:
        openvino = import_openvino()
        with FIRST_USE:
            _ = openvino.Tensor(np.zeros(1, np.int64)).data
        self._model = openvino.Core().read_model(str(file))
        self.inputs = [port.get_any_name() for port in self._model.inputs]
        self.outputs = [port.get_any_name() for port in self._model.outputs]
        super().__init__({})

    def run(self, batches: Sequence[Arrays]) -> Iterator[Outputs]:
        requests = self._compiled("THROUGHPUT" if len(batches) >= max(2, _cores()) else "LATENCY")
        ahead = len(requests)
        try:
            for position in range(len(batches) + ahead):  # one thread starts all, and waits in order
                request = requests[position % ahead]
                if position >= ahead:
                    request.wait()
                    yield {name: request.get_tensor(name).data.copy() for name in self.outputs}
                if position < len(batches):
                    request.start_async(dict(batches[position]))
        except BaseException:
            self._native.clear()  # requests that may still be at work
            raise

    def _compiled(self, hint: str) -> list[Any]:
        """Return requests to the graph, which is compiled, and takes memory, only for the uses that it is put to."""
        if hint not in self._native:
            settings = {"PERFORMANCE_HINT": hint, "INFERENCE_PRECISION_HINT": "f32"}
            compiled = import_openvino().Core().compile_model(self._model, "CPU", settings)
            number = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
            # as many again wait in OpenVINO's queue, so that no core waits for the thread that starts them
            self._native[hint] = [compiled.create_infer_request() for _ in range(2 * number)]
        requests: list[Any] = self._native[hint]
        return requests


class _OnnxRuntime(_WithThreads):
    def __init__(self, file: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; else it warns of what it could not optimise
        options.intra_op_num_threads = _cores()
        # threads that wait without sleeping take half of the speed where another program has a core
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.inputs = [item.name for item in session.get_inputs()]
        self.outputs = [item.name for item in session.get_outputs()]
        self.producer = str(session.get_modelmeta().producer_name)
        super().__init__(session)

    def run(self, batches: Sequence[Arrays]) -> Iterator[Outputs]:
        if len(batches) == 1:
            yield self._compute(batches[0])
            return
        with ThreadPoolExecutor(_cores()) as pool:
            yield from pool.map(self._compute, batches)

    def _compute(self, feeds: Arrays) -> Outputs:
        found = self._native.run(self.outputs, dict(feeds))
        return dict(zip(self.outputs, map(np.asarray, found), strict=True))


def _cores() -> int:
    """Return the number of cores of this process: in a container, fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
