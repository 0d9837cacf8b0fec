"""The forms of recorded traffic, and whose traffic it is; on files that are written here."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.recordings import Exchange, Fate, exchanges, success

ASKED = {"model": "mistral-embed", "input": ["a text", "another"]}
ANSWER = {
    "data": [{"index": 0, "embedding": [1.0, 0.5]}, {"index": 1, "embedding": [0.0, 2.0]}],
    "model": "mistral-embed",
    "usage": {"prompt_tokens": 5, "total_tokens": 5},
}
URI = "https://api.mistral.ai/v1/embeddings"


def vcrpy(body: Any, answer: Any) -> dict[str, Any]:
    request = {"method": "POST", "uri": URI, "body": json.dumps(body)}
    response = {"status": {"code": 200}, "headers": {"X-Id": ["7"]}, "body": {"string": json.dumps(answer)}}
    return {"version": 1, "interactions": [{"request": request, "response": response}]}


def parsed(body: Any, answer: Any) -> dict[str, Any]:
    request = {"method": "POST", "uri": URI, "parsed_body": body}
    response = {"status": {"code": 200}, "headers": {"X-Id": ["7"]}, "parsed_body": answer}
    return {"version": 1, "interactions": [{"request": request, "response": response}]}


def packed(body: Any, answer: Any) -> dict[str, Any]:
    form = vcrpy(body, answer)
    response = form["interactions"][0]["response"]
    response["headers"]["Content-Encoding"] = ["gzip"]
    response["body"]["string"] = gzip.compress(json.dumps(answer).encode())
    return form


def ruby(body: Any, answer: Any) -> dict[str, Any]:
    request = {"method": "post", "uri": URI, "body": {"encoding": "UTF-8", "string": json.dumps(body)}}
    written = {"encoding": "UTF-8", "string": json.dumps(answer)}
    response = {"status": {"code": 200}, "headers": {"X-Id": ["7"], "Content-Encoding": ["gzip"]}, "body": written}
    return {"http_interactions": [{"request": request, "response": response}]}


def httpmock(body: Any, answer: Any) -> dict[str, Any]:
    then = {"status": 200, "header": [{"name": "x-id", "value": "7"}], "body": json.dumps(answer)}
    return {"when": {"method": "POST", "path": "/v1/embeddings", "body": json.dumps(body)}, "then": then}


def agent(body: Any, answer: Any) -> dict[str, Any]:
    response = {"status": {"code": 200}, "headers": {"X-Id": "7"}, "body": json.dumps(answer)}
    return {"request": {"method": "POST", "url": URI, "body": json.dumps(body)}, "response": response}


def httprr(body: Any, answer: Any) -> bytes:
    sent, came = json.dumps(body).encode(), json.dumps(answer).encode()
    request = f"POST {URI} HTTP/1.1\r\nHost: api.mistral.ai\r\n\r\n".encode() + sent
    head = b"HTTP/1.1 200 OK\r\nX-Id: 7\r\nTransfer-Encoding: chunked\r\n\r\n"
    response = head + b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (9, came[:9], len(came) - 9, came[9:])
    return b"httprr trace v1\n%d %d\n" % (len(request), len(response)) + request + response


FORMS = {
    "a.yaml": vcrpy,
    "b.yaml": parsed,
    "c.yaml": packed,
    "d.yml": ruby,
    "mistral__e.yaml": httpmock,
    "f.json": agent,
    "g.json": vcrpy,
    "h.httprr": httprr,
}


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_understood(name: str, tmp_path: Path) -> None:
    """The same exchange comes out of each."""
    written = FORMS[name](ASKED, ANSWER)
    text = written if isinstance(written, bytes) else None
    if isinstance(written, dict):
        text = (json.dumps(written) if name.endswith("json") else yaml.safe_dump(written)).encode()
    assert text is not None
    (tmp_path / name).write_bytes(text)
    [found] = exchanges(tmp_path)
    recording = success(found)

    assert found.fate is Fate.VECTORS
    assert (found.provider, found.model, found.status, found.billed) == ("mistral", "mistral-embed", 200, 5)
    assert found.texts == ASKED["input"]
    assert found.answer == ANSWER
    assert found.header("x-id") == ["7"]
    assert recording.vectors.tolist() == [[1, 0.5], [0, 2]]
    assert recording.uri == URI


def made(uri: str, asked: dict[str, Any], cassette: str = "some.yaml") -> Exchange:
    return Exchange(cassette, 0, uri, asked, 200, {}, b"{}")


GOOGLE = {"requests": [{"content": {"parts": [{"text": "a"}]}, "outputDimensionality": 64}]}
PLACES = {
    "https://openrouter.ai/api/v1/embeddings": "openrouter",
    "https://integrate.api.nvidia.com/v1/embeddings": "nvidia",
    "http://127.0.0.1:11434/api/embed": "ollama",
    "http://127.0.0.1:9/v1/embeddings": "openai",
    "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l/publishers/google/models/m:predict": (
        "google_vertexai"
    ),
    "https://bedrock-runtime.eu-west-1.amazonaws.com/model/amazon.titan-embed-text-v2%3A0/invoke": "bedrock",
    "https://generativelanguage.googleapis.com/v1beta/models/m:batchEmbedContents": "google_genai",
    "https://oauth2.googleapis.com/token": "",
}


@pytest.mark.parametrize("uri", PLACES)
def test_the_host_tells_the_provider(uri: str) -> None:
    """By the rows of the providers, so that a new row needs no line here."""
    assert made(uri, {}).provider == PLACES[uri]


def test_a_file_without_a_host_tells_the_provider_by_its_name() -> None:
    """Otherwise it is a server of OpenAI's protocol."""
    assert made("/v1/embeddings", {}, "project/jina__some.yaml").provider == "jina"
    assert made("/v1/embeddings", {}, "project/unheard-of.yaml").provider == "openai"
    assert made("/v1beta/models/m:batchEmbedContents", GOOGLE, "project/gemini/some.yaml").provider == "google_genai"


@pytest.mark.parametrize(
    ("asked", "texts"),
    [
        ({"input": "a"}, ["a"]),
        ({"input": [1, 2]}, None),
        ({"texts": ["a", "b"]}, ["a", "b"]),
        ({"inputText": "a"}, ["a"]),
        ({"singleEmbeddingParams": {"text": {"value": "a"}}}, ["a"]),
        ({"instances": [{"content": "a"}, {"content": "b"}]}, ["a", "b"]),
        (GOOGLE, ["a"]),
        ({"content": {"parts": [{"text": "a"}, {"text": "b"}]}}, ["ab"]),
        ({"content": {"parts": [{"inlineData": {}}]}}, None),
    ],
    ids=str,
)
def test_texts_are_found_wherever_a_provider_has_them(asked: dict[str, Any], texts: list[str] | None) -> None:
    """None are those that are no texts."""
    assert made(URI, asked).texts == texts


def test_models_and_dimensions_are_found_in_paths_and_bodies() -> None:
    """Percent-encoded or not."""
    uri = "https://bedrock-runtime.us-east-1.amazonaws.com/model/us.cohere.embed-v4%3A0/invoke"

    assert made(uri, {}).model == "us.cohere.embed-v4:0"
    assert made("https://generativelanguage.googleapis.com/v1/models/m:batchEmbedContents", GOOGLE).dimensions == 64
