"""Azure OpenAI's embeddings: OpenAI's bodies behind another door.

What differs: the deployment in the URL decides the model and the body's `model` is ignored; `api-version` must be in
the query; the key travels in `api-key` (a bearer token from Entra ID will do as well); errors made by the gateway
carry the status as their code and no `type`; answers report what remains of the limits but not the limits. The newer
`/openai/v1/embeddings` route, which names the deployment in the body and needs no version, is served too.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Collection, Mapping
from typing import NoReturn

from tests.emulator.exchange import Job, Refusal, Reply, Request, Sketch, as_text
from tests.emulator.models import Model, ProviderName, served_by
from tests.emulator.openai import OpenAI

_ROUTE = re.compile(r"/openai/deployments/([^/]+)/embeddings")
_V1_ROUTE = "/openai/v1/embeddings"
_DENIED = (
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an "
    "active subscription and use a correct regional API endpoint for your resource."
)
_NO_DEPLOYMENT = (
    "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, "
    "please wait a moment and try again."
)


class Azure(OpenAI):
    """The endpoint of one Azure OpenAI resource."""

    name: ProviderName = "azure"

    def __init__(self, keys: Collection[str] | None, deployments: Mapping[str, str] | None) -> None:
        super().__init__(keys)
        self.deployments = deployments

    def serves(self, path: str) -> bool:
        return path == _V1_ROUTE or _ROUTE.fullmatch(path) is not None

    def sketch(self, request: Request) -> Sketch:
        plain = super().sketch(request)
        deployment = self._deployment(request)
        model = self._model(deployment)
        return Sketch(model.name if model else None, plain.texts, None, plain.dimensions, deployment)

    def accept(self, request: Request) -> Job:
        if request.path != _V1_ROUTE and not request.query.get("api-version"):
            self._reject(404, "404", "Resource not found")
        if request.key is None or (self.keys is not None and request.key not in self.keys):
            self._reject(401, "401", _DENIED)
        model = self._model(self._deployment(request))
        if model is None:
            self._reject(404, "DeploymentNotFound", _NO_DEPLOYMENT)
        return self.check(self.read(request), model)

    def _deployment(self, request: Request) -> str | None:
        match = _ROUTE.fullmatch(request.path)
        return match[1] if match else as_text((request.fields() or {}).get("model"))

    def _model(self, deployment: str | None) -> Model | None:
        if self.deployments is None:
            return served_by("openai", deployment)
        return served_by("openai", self.deployments.get(deployment or ""))

    def success_headers(self, job: Job) -> dict[str, str]:
        return {
            "azureml-model-session": "d001-emulated",
            "x-ms-region": "West Europe",
            "x-ratelimit-remaining-requests": "118",
            "x-ratelimit-remaining-tokens": str(max(120_000 - job.tokens, 0)),
            "x-request-id": str(uuid.uuid4()),
            **self.error_headers(),
        }

    def error_headers(self) -> dict[str, str]:
        return {"apim-request-id": str(uuid.uuid4())}

    def failure(self, status: int, reason: str | None, request: Request) -> Reply:
        if status == 408:
            return Reply(408, b"upstream request timeout\n", self.error_headers(), "text/plain")
        if status == 429:
            version = request.query.get("api-version", "v1")
            message = (
                f"Requests to the Embeddings_Create Operation under Azure OpenAI API version {version} have exceeded "
                "call rate limit of your current OpenAI S0 pricing tier. Please retry after 1 seconds."
            )
            return self._gateway_error(429, "429", message)
        if status in (401, 404):
            code, message = ("401", _DENIED) if status == 401 else ("DeploymentNotFound", _NO_DEPLOYMENT)
            return self._gateway_error(status, code, message)
        return super().failure(status, reason, request)

    def _reject(self, status: int, code: str, message: str) -> NoReturn:
        raise Refusal(self._gateway_error(status, code, message), message)

    def _gateway_error(self, status: int, code: str, message: str) -> Reply:
        body = json.dumps({"error": {"code": code, "message": message}}, separators=(",", ":"))
        return Reply(status, body.encode(), self.error_headers())
