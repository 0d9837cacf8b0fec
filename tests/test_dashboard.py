"""The dashboard for Grafana: each query is evaluated by a real Prometheus, on what real calls have measured.

``nox -s telemetry`` runs all of it: it needs the program ``prometheus``, which Debian has, and
``opentelemetry-exporter-prometheus``. Grafana itself is in no package that tests could install.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

import pytest

ROOT = Path(__file__).parents[1]
DASHBOARD: dict[str, Any] = json.loads((ROOT / "docs/grafana-dashboard.json").read_text("utf-8"))
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
QUERIES = {f"{panel['title']} {target['refId']}": target["expr"] for panel in PANELS for target in panel["targets"]}
CONFIGURATION = """
global: {{scrape_interval: 1s}}
scrape_configs: [{{job_name: embedrouter, static_configs: [{{targets: ["127.0.0.1:{port}"]}}]}}]
"""
GIVEN = {"$__range": "30s", "$__rate_interval": "10s", "$model": ".*", "$tag": ".*"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


def test_the_dashboard_can_be_imported() -> None:
    """It has what Grafana asks of a dashboard, and each query asks the source that the user chooses."""
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))

    assert len(set(numbers)) == len(numbers) >= 12
    assert DASHBOARD["title"]
    assert DASHBOARD["schemaVersion"] >= 36
    assert used <= names | {"__range", "__rate_interval", "__all"}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_the_queries_name_metrics_that_exist() -> None:
    """By their names in Prometheus, which follow from ours."""
    source = (ROOT / "src/embedrouter/otel/_metrics.py").read_text("utf-8")
    ours = {name.replace(".", "_") for name in re.findall(r'"((?:gen_ai|embedrouter)\.[a-z._]+)"', source)}
    metric = r"\b((?:gen_ai_client|embedrouter)_\w+?)(?:_(?:USD|seconds))?(?:_(?:total|sum|count|bucket))?[{[]"
    asked = set(re.findall(metric, " ".join(QUERIES.values())))

    assert asked <= ours
    assert len(asked) >= 8


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("prometheus") is None
    or find_spec("opentelemetry.exporter") is None
    or find_spec("prometheus_client") is None,
    reason="needs prometheus, and opentelemetry-exporter-prometheus",
)
def test_each_query_gives_numbers(tmp_path: Path) -> None:
    """Of calls that cost, hit the cache, fail, are degraded and refused."""
    served, port = free_port(), free_port()
    (tmp_path / "prometheus.yml").write_text(CONFIGURATION.format(port=served))
    programs: list[subprocess.Popen[str]] = [
        subprocess.Popen(
            ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
             f"--web.listen-address=127.0.0.1:{port}"],
            stderr=subprocess.DEVNULL, text=True,
        ),
        subprocess.Popen(
            [sys.executable, "-m", "tests.telemetry_calls", str(served)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        ),
    ]  # fmt: skip
    try:
        assert programs[1].stdout is not None
        assert [programs[1].stdout.readline().strip() for _ in range(2)] == ["ready", "done"]
        time.sleep(2)

        def numbers(query: str) -> list[float]:
            for name, value in GIVEN.items():
                query = query.replace(name, value)
            with urlopen(f"http://127.0.0.1:{port}/api/v1/query?query={quote(query)}", timeout=10) as answer:
                return [float(found["value"][1]) for found in json.load(answer)["data"]["result"]]

        found = {name: numbers(query) for name, query in QUERIES.items()}
    finally:
        for program in programs:
            program.kill()
            program.communicate()

    assert [name for name, values in found.items() if not values] == []
    assert [name for name, values in found.items() if any(value != value for value in values)] == []
    assert found["Spent A"][0] > 0
    assert 0.3 < found["Hit rate A"][0] < 0.7
    assert found["Open circuits A"] == [1]
