"""AWS Signature Version 4, from botocore: the extra `aws`."""

from __future__ import annotations

import importlib.util
from importlib import import_module

from app.contracts import WireRequest
from app.errors import BadRequest, KeyRefused


def require_package() -> None:
    """Raises BadRequest without botocore."""
    if importlib.util.find_spec("botocore") is None:
        raise BadRequest(
            "Requests to AWS are signed by botocore, which is not installed.",
            code="extra_missing",
            param="provider",
            hint="pip install 'reprog[aws]'",
        )


def signed(request: WireRequest, service: str, region: str, secret: str) -> WireRequest:
    """`request` with its signature in the headers. A signature holds for minutes: sign each attempt anew.

    `secret` is `access key id:secret access key[:session token]`. Raises KeyRefused for anything else.
    """
    key, _, rest = secret.partition(":")
    word, _, token = rest.partition(":")
    if not key or not word:
        raise KeyRefused(
            "The secret is no AWS credential.",
            hint="Give `access key id:secret access key`, and `:session token` if it is temporary.",
        )
    credentials = import_module("botocore.credentials").Credentials(key, word, token or None)
    asked = import_module("botocore.awsrequest").AWSRequest(
        request.method, request.url, headers=dict(request.headers), data=request.body
    )
    import_module("botocore.auth").SigV4Auth(credentials, service, region).add_auth(asked)
    return WireRequest(request.method, request.url, dict(asked.headers.items()), request.body)
