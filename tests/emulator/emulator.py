"""The emulator itself: the makers and their batch endpoints behind one port, a journal, and a script of faults.

The order of one exchange: the request is written down; a fault is chosen (the script first, then the rule); an error
status or a reset answers at once; otherwise the maker's checks run, the vectors are computed and *billed*; then the
fault spoils the answer, the latency passes, and the answer is sent. Billing comes before waiting on purpose: a client
that gives up has paid all the same. Requests to the Batch API take the same road; they are answered without vectors,
so the faults that spoil vectors cannot be played there.
"""

from __future__ import annotations

import threading
import uuid
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from types import TracebackType

from tests.emulator.azure import Azure
from tests.emulator.batch_api import BatchApi
from tests.emulator.batch_input import Limits
from tests.emulator.batches import Batches
from tests.emulator.bedrock import Bedrock
from tests.emulator.clock import Clock
from tests.emulator.cohere import Cohere
from tests.emulator.compatible import RULES, Compatible
from tests.emulator.exchange import Answer, Provider, Received, Refusal, Refused, Reply, Request
from tests.emulator.faults import Fault
from tests.emulator.files import Files
from tests.emulator.google import Google, Vertex
from tests.emulator.google_batches import GoogleBatches
from tests.emulator.journal import Journal
from tests.emulator.mistral_batches import LIMITS as MISTRAL_LIMITS
from tests.emulator.mistral_batches import MistralBatchApi, MistralForm
from tests.emulator.openai import OpenAI
from tests.emulator.openai_batches import OpenAIForm
from tests.emulator.pace import Pace
from tests.emulator.server import Delivery, Server
from tests.emulator.vectors import vector
from tests.emulator.voyage import Voyage
from tests.emulator.voyage_batches import LIMITS as VOYAGE_LIMITS
from tests.emulator.voyage_batches import VoyageBatchApi, VoyageForm

Rule = Callable[[Received], Fault | None]
BatchApis = BatchApi | VoyageBatchApi | MistralBatchApi | GoogleBatches


class Emulator:
    """The embeddings endpoints of OpenAI, Azure OpenAI, Cohere, Voyage AI, Google and Amazon Bedrock, on loopback.

    Use it as a context manager. `keys` are the only keys accepted (None: any that is not empty). `deployments` maps
    Azure deployment names and Bedrock inference profiles to models (None: every model is deployed under its own name).
    `latency` delays every answer by that many seconds. `pace` limits requests and tokens a minute; makers that report
    theirs in headers report it. An error inside the emulator or in `fault_for` is raised when the context ends.
    """

    def __init__(
        self,
        *,
        keys: Collection[str] | None = None,
        deployments: Mapping[str, str] | None = None,
        latency: float = 0.0,
        pace: Pace | None = None,
    ) -> None:
        self.latency = latency
        self.pace = pace
        self.fault_for: Rule | None = None
        self._initial_latency = latency
        openai, google = OpenAI(keys), Google(keys)
        self._providers: dict[str, Provider] = {
            "openai-api": openai,
            "azure-api": Azure(keys, deployments),
            "cohere-api": Cohere(keys),
            "voyage-api": (voyage := Voyage(keys)),
            "bedrock-api": Bedrock(keys, deployments),
            "google-api": google,
            "vertex-api": Vertex(keys),
            **{f"{name}-api": Compatible(name, keys) for name in RULES if name != "mistral"},
            "mistral-api": (mistral := Compatible("mistral", keys)),
        }
        self._journal = Journal()
        clock = Clock()
        files = Files(clock)
        self.batches = Batches(OpenAIForm(openai), files, clock, self._journal, Limits())
        """OpenAI's Batch API: what is to happen to the batches there."""
        voyage_files = Files(clock)
        self.voyage_batches = Batches(VoyageForm(voyage), voyage_files, clock, self._journal, VOYAGE_LIMITS)
        """Voyage's Batch API."""
        mistral_files = Files(clock, lambda: str(uuid.uuid4()))
        self.mistral_batches = Batches(MistralForm(mistral), mistral_files, clock, self._journal, MISTRAL_LIMITS)
        """Mistral's batch jobs."""
        self.google_batches = GoogleBatches(google, self._journal, lambda: self.google_url)
        """Google's batch endpoint: what is to happen to the batches there."""
        self._batch_apis: dict[str, BatchApis] = {
            "openai-api": BatchApi(openai, files, self.batches),
            "voyage-api": VoyageBatchApi(voyage, voyage_files, self.voyage_batches),
            "mistral-api": MistralBatchApi(mistral, mistral_files, self.mistral_batches),
            "google-api": self.google_batches,
        }
        self._script: deque[Fault | None] = deque()
        self._stopping = threading.Event()
        self._crashes: list[Exception] = []
        self._server: Server | None = None

    def __enter__(self) -> Emulator:
        self._server = Server(self._respond)
        self._stopping.clear()
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        if self._server is not None:
            self._server.stop()
            self._server = None
        if self._crashes and error is None:
            raise self._crashes[0]

    # Where to point the clients.

    @property
    def openai_url(self) -> str:
        """For `openai.OpenAI(base_url=…)`."""
        return f"{self._base}/openai-api/v1"

    @property
    def azure_url(self) -> str:
        """For `openai.AzureOpenAI(azure_endpoint=…)`."""
        return f"{self._base}/azure-api"

    @property
    def cohere_url(self) -> str:
        """For `cohere.ClientV2(base_url=…)`."""
        return f"{self._base}/cohere-api"

    @property
    def voyage_url(self) -> str:
        """For `voyageai.Client(base_url=…)`."""
        return f"{self._base}/voyage-api/v1"

    def url_of(self, server: str) -> str:
        """The address of a server of `compatible.RULES`, without its last step."""
        return f"{self._base}/{server}-api{RULES[server].route.removesuffix('/embeddings').removesuffix('/api/embed')}"

    @property
    def bedrock_url(self) -> str:
        """For `boto3.client("bedrock-runtime", endpoint_url=…)`."""
        return f"{self._base}/bedrock-api"

    @property
    def google_url(self) -> str:
        """For `genai.Client(http_options={"base_url": …})`, the developer API."""
        return f"{self._base}/google-api"

    @property
    def vertex_url(self) -> str:
        """For `genai.Client(vertexai=True, http_options={"base_url": …})`."""
        return f"{self._base}/vertex-api"

    @property
    def _base(self) -> str:
        if self._server is None:
            raise RuntimeError("the emulator is not running: use it as `with Emulator() as emulator:`")
        return self._server.url

    # What to let go wrong.

    def script(self, *faults: Fault | None) -> None:
        """Queue what happens to the next requests, one each; None answers normally."""
        self._script.extend(faults)

    @property
    def unplayed(self) -> tuple[Fault | None, ...]:
        """The part of the script that no request has taken yet."""
        return tuple(self._script)

    # What happened.

    @property
    def received(self) -> tuple[Received, ...]:
        """Every embeddings request so far, accepted or not, in order of arrival."""
        return tuple(received for received in self._journal.received if received.endpoint == "embeddings")

    @property
    def calls(self) -> int:
        """How many embeddings requests there were."""
        return len(self.received)

    @property
    def refused(self) -> tuple[Refused, ...]:
        """The requests that broke the maker's rules, faults left aside."""
        return self._journal.refused

    @property
    def billed(self) -> Counter[tuple[str, str]]:
        """Tokens of all computed answers by (provider, model), those that were lost on purpose included."""
        return self._journal.billed

    @property
    def billed_in_batches(self) -> Counter[tuple[str, str]]:
        """Tokens of all requests that batches have done, by (provider, model): at half the price, not in `billed`."""
        return self._journal.billed_in_batches

    @property
    def peak_in_flight(self) -> int:
        """The most requests that were being answered at one moment."""
        return self._journal.peak

    def reset(self) -> None:
        """Forget what happened, the batches and files, the script, the rule and the latency."""
        self._journal.forget()
        self.batches.reset()
        self.voyage_batches.reset()
        self.mistral_batches.reset()
        self.google_batches.reset()
        self._script.clear()
        self.fault_for = None
        self.latency = self._initial_latency

    # How one request is answered.

    def _respond(self, request: Request) -> Delivery | None:
        prefix, _, rest = request.path.lstrip("/").partition("/")
        local = replace(request, path=f"/{rest}")
        provider = self._provider(prefix, local.path)
        if not isinstance(provider, BatchApis) and request.method != "POST":
            return Delivery(Reply(405, b'{"message":"method not allowed"}', {"allow": "POST"}))
        if provider is None:
            return Delivery(_not_found(request.path))
        received = self._journal.arrive(provider.name, local, provider.sketch(local))
        try:
            fault = self._next_fault(received)
            delivery = self._perform(provider, local, received, fault)
            stopped = self._stopping.wait(self.latency + (fault.delay if fault else 0.0))
            return None if stopped else delivery
        except Exception as error:  # noqa: BLE001 - raised again when the context ends
            self._crashes.append(error)
            return Delivery(Reply(500, f"the emulator failed: {error!r}".encode(), content_type="text/plain"))
        finally:
            self._journal.leave()

    def _provider(self, prefix: str, path: str) -> Provider | BatchApis | None:
        if (batches := self._batch_apis.get(prefix)) is not None and batches.serves(path):
            return batches
        provider = self._providers.get(prefix)
        return provider if provider is not None and provider.serves(path) else None

    def _next_fault(self, received: Received) -> Fault | None:
        try:
            return self._script.popleft()
        except IndexError:
            return self.fault_for(received) if self.fault_for else None

    def _perform(
        self, provider: Provider | BatchApis, request: Request, received: Received, fault: Fault | None
    ) -> Delivery:
        if fault is not None and fault.kind in ("status", "reset", "html"):
            return Delivery(_failed(provider, request, fault), "reset" if fault.kind == "reset" else "whole")
        try:
            if isinstance(provider, BatchApis):
                _check_playable(fault, received)
                reply = self._watched(provider.answer(request))
            else:
                reply = self._embed(provider, request, fault, received.at)
        except Refusal as refusal:
            self._journal.refuse(Refused(received, refusal.reply.status, refusal.message))
            return Delivery(refusal.reply)
        if fault is not None and fault.kind in ("lost", "half"):
            return Delivery(reply, "reset" if fault.kind == "lost" else "half")
        return Delivery(reply)

    def _embed(self, provider: Provider, request: Request, fault: Fault | None, at: float) -> Reply:
        job = provider.accept(request)
        if self.pace is not None and not self.pace.take(job.tokens, at):
            raise Refusal(provider.failure(429, None, request), "over the limit of a minute")
        vectors = tuple(vector(job.model.name, job.dimensions, job.input_type, text) for text in job.texts)
        self._journal.bill(provider.name, job)
        answer = Answer(job, vectors, tuple(range(len(vectors))), job.tokens)
        reply = provider.render(fault.spoil(answer) if fault else answer)
        if self.pace is None:
            return reply
        said = {name: value for name, value in self.pace.headers(at).items() if name in reply.headers}
        return replace(reply, headers={**reply.headers, **said})

    def _watched(self, reply: Reply) -> Reply:
        """Return the reply such that an error while its pieces are made is not swallowed by the server."""
        return reply if reply.pieces is None else replace(reply, pieces=self._made(reply.pieces))

    def _made(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        try:
            yield from pieces
        except Exception as error:
            self._crashes.append(error)
            raise


def _check_playable(fault: Fault | None, received: Received) -> None:
    if fault is not None and fault.kind not in ("slow", "lost", "half"):
        asked = f"{received.method} {received.path}"
        raise ValueError(f"Fault {fault.kind!r} spoils vectors and {asked} answers none: use batches.spoil_lines()")


def _failed(provider: Provider | BatchApis, request: Request, fault: Fault) -> Reply:
    """Return the provider's own error, or the body and headers that the fault brings along."""
    if fault.kind == "reset":
        return Reply(500, b"")
    if fault.body is None:
        reply = provider.failure(fault.code, fault.reason, request)
        return replace(reply, headers={**reply.headers, **dict(fault.headers)})
    return Reply(fault.code, fault.body, dict(fault.headers))


def _not_found(path: str) -> Reply:
    return Reply(404, f'{{"error":{{"message":"Invalid URL (POST {path})"}},"detail":"Not Found"}}'.encode())
