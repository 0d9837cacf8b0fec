"""What AWS and boto3 say in place of an answer, and which of our errors follows.

AWS names what is wrong by the code of an error; some codes have an HTTP status that means something else elsewhere.
Exceptions of botocore are known by their names, because older releases lack some. Their messages are not repeated where
they may hold what a program for credentials has written.
"""

import os
from collections.abc import Mapping
from typing import Any

from .._display import shown_name
from ..errors import AuthenticationError, ConfigError
from ..models import Model
from ._redaction import find_possible_keys
from ._responses import Refusal

CREDENTIALS = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a Bedrock API key in AWS_BEARER_TOKEN_BEDROCK; "
    "after a single sign-on has expired run: aws sso login."
)
ACCESS = "Bedrock's console shows which models the account may use in a region."
SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")

BAD_CREDENTIALS = frozenset({
    "ExpiredToken", "ExpiredTokenException", "IncompleteSignature", "IncompleteSignatureException",
    "InvalidClientTokenId", "InvalidSignatureException", "MissingAuthenticationToken",
    "MissingAuthenticationTokenException", "RequestExpired", "SignatureDoesNotMatch", "UnrecognizedClientException",
})  # fmt: skip
STATUSES = {"ServiceQuotaExceededException": 429, "ModelNotReadyException": 503, "ModelErrorException": 502}
"""Codes whose HTTP status means something else elsewhere: 400, 429 and 424."""
WITHOUT_CREDENTIALS = {
    "PartialCredentialsError": "only a part of the credentials was found",
    "NoCredentialsError": "no AWS credentials were found",
    "NoAuthTokenError": "no token was found",
    "UnauthorizedSSOTokenError": "the single sign-on has expired",
    "SSOError": "the single sign-on has no valid token",
    "TokenRetrievalError": "no token could be fetched",
    "LoginError": "the sign-in has expired",
    "CredentialRetrievalError": "the credentials could not be fetched",
    "MetadataRetrievalError": "the machine's metadata service gave no credentials",
    "RefreshWithMFAUnsupportedError": "the role needs a code of multi-factor authentication",
}


def refusal(error: Any, name: str, key_origin: str) -> Refusal:
    """Return what AWS refuses, with the status that says the same as the code of its error, and what to do.

    Args:
        error: a ``ClientError`` of botocore.
        name: the model's, on Bedrock.
        key_origin: where an API key was read from; empty without one.
    """
    code, message = _code_and_message(error)
    about = error.response.get("ResponseMetadata", {})
    status = int(STATUSES.get(code) or about.get("HTTPStatusCode") or 0)
    advice = ""
    if "on-demand throughput" in message:
        advice = f"Pass deployment=, such as 'us.{name}', 'eu.{name}', 'apac.{name}' or 'global.{name}'."
    elif code in BAD_CREDENTIALS:
        status, advice = 403, f"Check or renew the credentials. {CREDENTIALS}"
    elif "Authentication failed" in message:
        origin = f" ({key_origin})" if key_origin else ""
        advice = f"Check the API key{origin}, and that it belongs to the region (AWS_REGION)."
    elif code == "AccessDeniedException" or "operation not allowed" in message.lower():
        status, advice = 403, f"Allow bedrock:InvokeModel on the model to these credentials. {ACCESS}"
    elif "model identifier is invalid" in message or code == "ResourceNotFoundException":
        advice = f"Check the model's name and the region (AWS_REGION). {ACCESS}"
    elif 300 <= status < 400:
        advice = "boto3 follows no redirect. Set base_url to the address that it has now."
    elif status == 429:
        advice = "Wait, set Model(…, requests_per_minute=…), or ask for a larger quota (Service Quotas, Bedrock)."
    return Refusal(status, {"code": code, "message": message}, about.get("HTTPHeaders"), advice)


def keys_in(error: BaseException) -> list[str]:
    """Return the keys of the environment; where AWS writes of a signature or a token, all that looks like a key."""
    code, message = _code_and_message(error)
    found = [value for name in SECRETS if (value := os.environ.get(name))]
    return found + (find_possible_keys(message) if code in BAD_CREDENTIALS else [])


def _code_and_message(error: BaseException) -> tuple[str, str]:
    """Return the code and the message of a refusal by AWS; empty for other exceptions."""
    response = getattr(error, "response", None)
    found = response.get("Error", {}) if isinstance(response, Mapping) else {}
    return str(found.get("Code", "")), str(found.get("Message", ""))


def without_credentials(model: Model, error: Exception) -> AuthenticationError | None:
    """Return our error for missing or expired credentials; ``None`` for any other exception."""
    names = [kind.__name__ for kind in type(error).__mro__]
    reason = next((WITHOUT_CREDENTIALS[name] for name in names if name in WITHOUT_CREDENTIALS), None)
    return AuthenticationError(f"{model.name}: {reason}. {CREDENTIALS}", model=model.name) if reason else None


def without_client(model: Model, error: Exception) -> Exception:
    """Return our error for a client that boto3 cannot make."""
    if (ours := without_credentials(model, error)) is not None:
        return ours
    match type(error).__name__:
        case "NoRegionError":
            story = "no region is set. Set AWS_REGION, or pass base_url='https://bedrock-runtime.REGION.amazonaws.com'."
        case "ProfileNotFound":
            profile = shown_name(os.environ.get("AWS_PROFILE") or "default")
            story = f"there is no profile {profile}. Check AWS_PROFILE and ~/.aws/config."
        case "ValueError" | "InvalidRegionError":
            story = "the region or the address cannot be used. Check AWS_REGION and base_url."
        case name:
            story = (
                f"boto3 could not make a client ({name}). Check AWS's settings in the environment and ~/.aws/config."
            )
    return ConfigError(f"{model.name}: {story}")
