"""What servers say in place of vectors, and what is understood of it: their words in any shape of body, and the facts.

The wordings are those of the makers' pages, of the servers' sources and of reports about them. Each table has several
wordings of one meaning, and wordings that only look like it.
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from embedrouter.providers._messages import carried_status, code_of, parse_span, read, words

# The words, in any shape of body

REASON = "This input was rejected."
SHAPES: dict[str, Any] = {
    "string": REASON,
    "OpenAI": {"error": {"message": REASON, "type": "invalid_request_error", "param": None, "code": None}},
    "an error as a string": {"error": REASON},
    "TEI": {"error": REASON, "error_type": "Validation"},
    "message": {"id": "1", "message": REASON},
    "detail": {"detail": REASON},
    "FastAPI": {"detail": [{"type": "value_error", "msg": REASON, "input": "a" * 5000}]},
    "an error in a detail": {"detail": {"error": REASON}},
    "an error in an error": {"error": {"error": {"message": REASON}}},
    "a list of errors": {"errors": [{"code": 7003, "message": REASON}], "success": False},
    "a list": [{"error": {"code": 400, "message": REASON}}],
    "a list of strings": [REASON],
    "a title": {"title": REASON, "status": 400},
    "AWS": {"Message": REASON, "__type": "ValidationException"},
    "plain bytes": REASON.encode(),
    "a web page": f"<!DOCTYPE html><html><head><title>{REASON}</title></head><body>{'x' * 100_000}</body></html>",
    "a heading": f"<html>\n<body><h1>{REASON}</h1>nginx</body></html>",
    "a page without a title": f"<html><body><p>{REASON}</p></body></html>",
    "lines": f"\n  This input\n\twas rejected.  \n{' ' * 10_000}",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_servers_own_words_are_found_in_any_shape(shape: str) -> None:
    """Nothing of the shape itself is shown."""
    assert words(SHAPES[shape]) == REASON


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"error": "Bad Request", "message": "texts must not be empty", "statusCode": 400},
         "Bad Request: texts must not be empty"),
        ({"detail": [{"loc": ["body", "input"], "msg": "field required"}, {"loc": ["body", "x"], "msg": "no"}]},
         "body.input: field required; body.x: no"),
        ({"reason": None, "error": True, "message": "busy"}, "busy"),
        ({"unheard": {"of": "a shape"}}, '{"unheard": {"of": "a shape"}}'),
        ([], ""), ({}, ""), (None, ""), ("", ""), (b"\xff\xfe", "\N{REPLACEMENT CHARACTER}" * 2), (3, ""),
        ({"error": []}, '{"error": []}'),
    ],
)  # fmt: skip
def test_shapes_with_more_than_one_reason_or_none(body: Any, shown: str) -> None:
    """The general comes before the special."""
    assert words(body) == shown


def test_objects_inside_of_objects_are_opened_for_a_while() -> None:
    """A body is not trusted."""
    body: Any = REASON
    for _ in range(900):
        body = {"error": body}
    assert len(words(body)) <= 2_000
    assert words(json.loads('{"error":' * 900 + "1" + "}" * 900)) is not None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"error": {"message": "x", "code": 502}}, 502),
        ({"error": {"message": "x", "code": "429"}}, 429),
        ({"error": {"message": "x", "status": 503}}, 503),
        ({"error": "x", "status_code": 401}, 401),
        ({"code": 404, "msg": "x"}, 404),
        ([{"error": {"code": 400, "message": "x"}}], 400),
        ({"errors": [{"code": 500, "message": "x"}]}, 500),
        ({"error": {"code": 40303}}, None),
        ({"error": {"code": "rate_limited"}}, None),
        ({"error": "x", "status": 200}, None),
        ({"error": None}, None),
        ("x", None),
    ],
)
def test_the_status_that_an_answer_carries(body: Any, status: int | None) -> None:
    """Where it is one of HTTP's errors."""
    assert carried_status(body) == status


def test_the_code_of_an_error() -> None:
    """The code, and the type where there is none."""
    assert code_of({"error": {"code": "insufficient_quota", "type": "x"}}) == "insufficient_quota"
    assert code_of({"error": {"code": None, "type": "throttling_error"}}) == "throttling_error"
    assert code_of({"error": {"code": 7}, "error_type": "Validation"}) == "Validation"
    assert code_of("text") == ""


# Waits

WAITS = {
    "Rate limit reached on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s.": 20,
    "Limit: 1000000 / min. Please try again in 1m2.5s. Visit https://platform.openai.com/account/rate-limits": 62.5,
    "Please try again in 6ms. Visit": 0.006,
    "Requests have exceeded call rate limit. Please retry after 17 seconds. Please contact Azure support.": 17,
    "Please wait 300 ms": 0.3,
    "Please retry in 32.480s.": 32.48,
    "Retry after 2 minutes": 120,
    "please wait for 5 minutes and 10 seconds before retrying": 310,
    "Too many requests, retry-after: 30": 30,
    "try again in 1h": 3600,
    "Rate limited. Your limit resets in 45 sec": 45,
    "Model is loading, available in 12.5 seconds": 12.5,
    "Try again in about 3 seconds": 3,
    "Please slow down.": None,
    "Retry 3 times": None,
    "try again in a while": None,
    "Request took 20s": None,
    "try again in 20 steps": None,
}


@pytest.mark.parametrize("message", WAITS)
def test_waits_in_messages(message: str) -> None:
    """In every unit; the longest of several."""
    assert read(message).wait == (pytest.approx(WAITS[message]) if WAITS[message] is not None else None)


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({"error": {"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "32s"}]}}, 32),
        ({"retry_after": 17}, 17),
        ({"error": {"retryAfterMs": 300}}, 0.3),
        ({"detail": {"retry_after_seconds": "4"}}, 4),
        ({"retry_after": True}, None),
        ({"retry_after": None}, None),
        ({"retry_after": "x" * 10**6}, None),
        ({"retry_after": 10**400}, 1e30),
    ],
)
def test_waits_in_fields(body: Any, seconds: float | None) -> None:
    """Google's, and those of gateways."""
    assert read("slow down", body).wait == (pytest.approx(seconds) if seconds is not None else None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("6m0s", 360), ("2m59.56s", 179.56), ("12ms", 0.012), ("1d", 86400), ("3 hours", 10800), ("x", None)],
)
def test_durations(text: str, seconds: float | None) -> None:
    """As headers and messages write them."""
    assert parse_span(text) == (pytest.approx(seconds) if seconds is not None else None)


# Limits of the rate

RATES: dict[str, tuple[int | None, int | None]] = {
    "You have not yet added your payment method in the billing page and will have reduced rate limits of 3 RPM and "
    "10K TPM.": (3, 10_000),
    "Rate limit reached for default-text in organization org-x on requests per min. Limit: 3 / min. Please": (3, None),
    "Rate limit reached for text-embedding-3-small in organization org-x on tokens per min (TPM): Limit 1,000,000, "
    "Used 999999, Requested 5000.": (None, 1_000_000),
    "on requests per min (RPM): Limit 3, Used 3, Requested 1": (3, None),
    "Rate limit reached on tokens per min. Limit: 1000000 / min. Current: 1 / min.": (None, 1_000_000),
    "You are using a Trial key, which is limited to 100 API calls / minute.": (100, None),
    "Exceeded 60 requests per minute": (60, None),
    "max 1M tokens per minute": (None, 1_000_000),
    "You are using a Trial key, which is limited to 1000 API calls / month.": (None, None),
    "on requests per day (RPD): Limit 200, Used 200": (None, None),
    "Too many requests": (None, None),
}


@pytest.mark.parametrize("message", RATES)
def test_limits_a_minute_in_messages(message: str) -> None:
    """Those of other periods are left alone."""
    limits = read(message).limits
    assert ((limits.requests, limits.tokens) if limits else (None, None)) == RATES[message]


# Money

QUOTA = {
    "You exceeded your current quota, please check your plan and billing details.": True,
    "Insufficient credits. Add more using https://openrouter.ai/settings/credits": True,
    "litellm.RateLimitError: RateLimitError: OpenAIException - You exceeded your current quota": True,
    "Your credit balance is too low to access the API": True,
    "Sorry, your account balance is insufficient": True,
    "This API method requires billing to be enabled.": True,
    "ExceededBudget: Budget has been exceeded! Current cost: 1.0, Max budget: 0.5": True,
    "You exceeded your current quota, please check your plan and billing details. Please retry in 32.4s.": False,
    "You have not yet added your payment method in the billing page: 3 RPM and 10K TPM": False,
    "Rate limit reached": False,
    "Too many requests": False,
}


@pytest.mark.parametrize("message", QUOTA)
def test_a_quota_that_is_used_up(message: str) -> None:
    """With a wait, or a limit a minute, it is a limit of the rate."""
    assert read(message).quota is QUOTA[message]


# Texts that are too long, and requests of too many texts

TOO_LONG: dict[str, int | None] = {
    "Input validation error: `inputs` must have less than 512 tokens. Given: 992": 512,
    "This model's maximum context length is 8192 tokens, however you requested 9000 tokens (9000 in the prompt).": 8192,
    "This model's maximum context length is 512 tokens. However, you requested 992 tokens in the input.": 512,
    "Invalid 'input': maximum context length is 8192 tokens.": 8192,
    "input (992 tokens) is too large to process. increase the physical batch size (current batch size: 512)": 512,
    "the request (992 tokens) exceeds the available context size (512 tokens), try increasing it": 512,
    "The example at index 0 in your batch has too many tokens and does not fit into the model's context window of "
    "32000 tokens.": 32_000,
    "too many tokens: size limit exceeded by 7 tokens.": None,
    "too many tokens: total number of tokens in text exceeds size of 512": 512,
    "the input length exceeds the context length": None,
    "The input token count is 24000 but the model supports up to 2048.": 2048,
    "Too many input tokens. Max input tokens: 8192, request input token count: 9000": 8192,
    "Malformed input request: #/texts/1: expected maxLength: 2048, actual: 2449, please reformat your input and try "
    "again.": None,  # of characters
    "Malformed input request: expected maxLength: 50000, actual: 66000, please reformat your input.": None,
    "Input text exceeds maximum length of 8194 tokens": 8194,
    "Single text cannot exceed 8194 tokens. 9000 tokens given.": 8194,
    "Input length 992 exceeds maximum allowed token size 512": 512,
    "Range of input length should be [1, 8192]": 8192,
    "Token indices sequence length is longer than the specified maximum sequence length for this model (992 > 512)":
        512,
    "The size of tensor a (992) must match the size of tensor b (512) at non-singleton dimension 1": 512,
    "Input is too long. Limit is 4096 tokens, got 5000": 4096,
    "input is too long": None,
    "The prompt is too long: 9000 tokens, model maximum context length: 8,192": 8192,
}  # fmt: skip


@pytest.mark.parametrize("message", TOO_LONG)
def test_a_text_that_is_too_long_and_the_limit(message: str) -> None:
    """Of two numbers the one that is allowed."""
    found = read(message)
    assert found.too_long
    assert found.limit == TOO_LONG[message]
    assert found.batch_size is None
    assert not found.unknown_model
    assert not found.unsupported


BATCH = {
    "batch size is invalid, it should not be larger than 10.: input.contents": 10,
    "<400> InternalError.Algo.InvalidParameter: batch size is invalid, it should not be larger than 25": 25,
    "invalid request: total number of texts must be at most 96": 96,
    "batch size 200 > maximum allowed batch size 32": 32,
    "array is too long, maximum 2048": 2048,
    "Invalid 'input': array too long. Expected an array with maximum length 2048, but got an array with length 3000 "
    "instead.": 2048,
    "The batch size limit is 1000. Your batch size is 1200.": 1000,
    "List should have at most 128 items after validation, not 200": 128,
    "BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch": 100,
    "Too many inputs. The max number of inputs is 16.  We hope to increase the number of inputs per request soon.": 16,
    "#/texts: expected maximum item count: 96, found: 200": 96,
    "5 instance(s) is allowed per prediction. Actual: 200": 5,
    "too many inputs for one request: 200, maximum of 64 texts": 64,
    "Number of inputs exceeds the maximum of 64": 64,
    "max batch size: 8": 8,
}


@pytest.mark.parametrize("message", BATCH)
def test_a_request_of_too_many_texts(message: str) -> None:
    """Not a text that is too long, although some say too long."""
    found = read(message)
    assert found.batch_size == BATCH[message]
    assert not found.too_long


@pytest.mark.parametrize(
    "message",
    [
        "Requested 453357 tokens, max 300000 tokens per request",
        "The max allowed tokens per submitted batch is 1000000. Your batch has 1200000 tokens after truncation. Please "
        "lower the number of tokens in the batch.",
        "Too many tokens in the batch: 200000",
        "This input was rejected as unsafe.",
        "'$.input' is invalid.",
        "upstream took too long to respond",
        "The server had an error while processing your request",
        "-42 is less than the minimum of 1 - 'dimensions'",
    ],
)
def test_what_says_nothing_of_a_text_or_of_the_number_of_texts(message: str) -> None:
    """The tokens of all texts together, and other things."""
    found = read(message)
    assert not found.too_long
    assert found.batch_size is None
    assert found.limit is None


# Models and fields

MODELS = {
    "Invalid model name passed in model=text-embedding-3-small. Call /v1/models to view available models": True,
    "Model voyage-4-lite is not supported. Supported models are ['voyage-4'].": True,
    'model "nomic" not found, try pulling it first': True,
    "The model `text-embedding-9` does not exist or you do not have access to it.": True,
    "models/foo is not found for API version v1, or is not supported for embedContent.": True,
    "This model is not supported for embeddings": True,
    "'llama3' does not support embeddings": True,
    "The model does not support Embeddings API": True,
    "No deployments available for selected model": True,
    "unknown model 'x'": True,
    "Invalid model: no-such-model": True,
    "Model some/model does not exist": True,
    "Specified model not found: no-such-model. Did you mean: text-embedding-bge-m3?": True,
    "This server does not support embeddings. Start it with `--embeddings`": True,
    "Pooling type 'none' is not OAI compatible. Please use a different pooling type": True,
    "The model has been deprecated": True,
    "The provided model identifier is invalid.": True,
    "Invocation of model ID cohere.embed-v4:0 with on-demand throughput isn’t supported. Retry your request with the "
    "ID or ARN of an inference profile that contains this model.": True,
    "This input was rejected.": False,
    "the model's maximum context length is 512 tokens": False,
    "Something went wrong.": False,
}


@pytest.mark.parametrize("message", MODELS)
def test_a_model_that_is_not_served(message: str) -> None:
    """In the words of gateways, which have no code for it."""
    assert read(message).unknown_model is MODELS[message]


UNSUPPORTED = {
    "litellm.UnsupportedParamsError: voyage does not support parameters: {'dimensions': 256}": True,
    "Unrecognized request argument supplied: dimensions": True,
    "extra fields not permitted: encoding_format": True,
    "body.encoding_format: Extra inputs are not permitted": True,
    "Unsupported parameter: 'dimensions'": True,
    "parameter `encoding_format` is not supported": True,
    "unknown field `dimensions`, expected one of": True,
    "Malformed input request: #: extraneous key [dimensions] is not permitted, please reformat your input": True,
    "Malformed input request: #: required key [texts] not found": True,
    "This input was rejected.": False,
}


@pytest.mark.parametrize("message", UNSUPPORTED)
def test_a_field_that_is_not_taken(message: str) -> None:
    """No text is at fault."""
    assert read(message).unsupported is UNSUPPORTED[message]


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("encoding_format: Input should be 'float'", {"encoding_format"}),
        ("base64 is not supported", {"encoding_format"}),
        ("only float encoding format is supported", {"encoding_format"}),
        ("Model does not support matryoshka representation, changing output dimensions will lead to poor results.",
         {"dimensions"}),
        ("output_dimension is not a field", {"dimensions"}),
        ("UnsupportedParamsError: {'encoding_format': 'base64', 'dimensions': 8}", {"encoding_format", "dimensions"}),
        ("This input was rejected.", set()),
    ],
)  # fmt: skip
def test_the_fields_that_are_named(message: str, fields: set[str]) -> None:
    """A request is made again without these."""
    assert read(message).fields == fields


@pytest.mark.parametrize(
    "unit",
    ["a", " a", "1 ", "0", "1.", "1,", "_1", "-", "try again in ", "requests per min", "model ", "1m", "<", "limit 1",
     "batch size ", "("],
)  # fmt: skip
def test_no_message_takes_long(unit: str) -> None:
    """However it repeats itself."""
    text = unit * (100_000 // len(unit))
    began = time.process_time()
    for body in (text, {"error": text}, f"<html>{text}"):
        read(words(body), body)
    assert time.process_time() - began < 2, "more than in proportion to its length"
