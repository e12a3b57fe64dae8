"""Every deliberate error, with its HTTP status and stable code.

    ReprogError
    ├── BadRequest 422 · NotFound 404 · Conflict 409 · TooLarge 413 · UnsupportedType 415
    ├── Unauthorised 401 · Forbidden 403 · RateLimited 429 · BudgetExhausted 402 · Unusable 503
    └── ProviderError 502            what a source model's answer (or silence) meant
        ├── Throttled                retry after a wait
        ├── Unavailable              retry; the outcome may be unknown (and then is billed)
        ├── Rejected                 this image will never be scored; others may be
        ├── ReplyInvalid             answered, but not in a form we can read
        └── ConfigError              key, model, quota or terms: stop the run
            ├── KeyRefused · QuotaExhausted · ModelChanged

One handler (`app.api.problems`) renders them as RFC 9457 problem documents.
"""

from __future__ import annotations


class ReprogError(Exception):
    """Base class. `detail` says what happened; `hint` says what to do; `param` names the field."""

    status = 500
    code = "internal_error"

    def __init__(
        self, detail: str, *, code: str | None = None, hint: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.param = param
        if code is not None:
            self.code = code


class BadRequest(ReprogError):
    """The request is well-formed HTTP but says something that cannot be done."""

    status = 422
    code = "invalid_request"


class NotFound(ReprogError):
    """No such resource."""

    status = 404
    code = "not_found"


class Conflict(ReprogError):
    """The resource is in a state that forbids this."""

    status = 409
    code = "conflict"


class TooLarge(ReprogError):
    """The body, archive or image is over a stated limit."""

    status = 413
    code = "too_large"


class UnsupportedType(ReprogError):
    """The media type or file format is not one we read."""

    status = 415
    code = "unsupported_type"


class Unauthorised(ReprogError):
    """No key, or a key we do not know."""

    status = 401
    code = "unauthorised"


class Forbidden(ReprogError):
    """The key lacks the scope, or the host is not allowed."""

    status = 403
    code = "forbidden"


class RateLimited(ReprogError):
    """Too many requests; `retry_after` is in seconds."""

    status = 429
    code = "rate_limited"

    def __init__(self, detail: str, *, retry_after: float, hint: str | None = None) -> None:
        super().__init__(detail, hint=hint)
        self.retry_after = retry_after


class BudgetExhausted(ReprogError):
    """A reservation would pass the money cap or the query cap. Nothing was sent.

    `reason` is `budget_exhausted` (money) or `max_queries`; `scope` the id of the cap that refused.
    """

    status = 402
    code = "budget_exhausted"

    def __init__(self, detail: str, *, reason: str, scope: str, hint: str | None = None) -> None:
        super().__init__(detail, hint=hint)
        self.reason = reason
        self.scope = scope


class Unusable(ReprogError):
    """A part we depend on (disk, database, provider) cannot serve now; `retry_after` in seconds."""

    status = 503
    code = "unavailable"

    def __init__(
        self, detail: str, *, retry_after: float = 5.0, code: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(detail, code=code, hint=hint)
        self.retry_after = retry_after


class ProviderError(ReprogError):
    """A source model did not give scores.

    `retryable`: another attempt may succeed. `billed`: `False` the provider refused before processing,
    `None` nobody can know (timeout, reset, 5xx): counted as spent. `retry_after`: seconds asked for.
    `request_id`: the provider's own id, for a bill dispute.
    """

    status = 502
    code = "provider_error"
    retryable = False
    billed: bool | None = False
    advice: str | None = None  # the hint where the provider's own words give none

    def __init__(
        self,
        detail: str,
        *,
        hint: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        request_id: str | None = None,
        http_status: int | None = None,
    ) -> None:
        super().__init__(detail, code=code, hint=hint or self.advice)
        self.retry_after = retry_after
        self.request_id = request_id
        self.http_status = http_status


class Throttled(ProviderError):
    """The provider's rate limit: wait, then ask again."""

    code = "provider_throttled"
    retryable = True


class Unavailable(ProviderError):
    """5xx, timeout, reset, a model still loading: ask again; the outcome is unknown."""

    code = "provider_unavailable"
    retryable = True
    billed = None
    advice = "Wait until the provider answers again; what was paid for is kept."


class NotSent(Unavailable):
    """No byte reached the provider (DNS, refused connection): certain not to be billed."""

    code = "provider_unreachable"
    billed = False


class Rejected(ProviderError):
    """This image will never be scored (format, size); asking again is waste."""

    code = "image_rejected"


class Doubtful(Rejected):
    """Called a bad image by a service known to say so of good ones now and then: worth two more tries."""

    retryable = True


class ReplyInvalid(ProviderError):
    """A success that we cannot read (HTML page, NaN, missing values)."""

    code = "provider_reply_invalid"
    retryable = True
    billed = None
    advice = "Check that base_url and model are of a service that speaks this provider's format."


class ConfigError(ProviderError):
    """Wrong model, project, terms, or a client fault: the whole run stops."""

    code = "provider_config"
    advice = "Check the connection's base_url and model."


class KeyRefused(ConfigError):
    """The provider refused the key."""

    code = "provider_key_refused"
    advice = "Check the connection's secret."


class QuotaExhausted(ConfigError):
    """The account's quota or credit is used up."""

    code = "provider_quota_exhausted"
    advice = "Go on when the account's quota is renewed, or raise it with the provider."


class ModelChanged(ConfigError):
    """The source model's version changed from `old` to `new` while the job ran."""

    code = "source_model_changed"

    def __init__(self, old: str, new: str) -> None:
        super().__init__(
            f"The source model's version changed from {old} to {new}.",
            hint="Resume to go on with the new version; its answers are paid for anew.",
        )
        self.old, self.new = old, new


class Interrupted(Exception):
    """The user asked to pause or cancel, or this process is shutting down. Never shown to users."""


class Taken(Exception):
    """Somebody else buys some of these images now, or has just bought them: look again. `keys` are theirs.
    Never shown to users."""

    def __init__(self, keys: frozenset[bytes]) -> None:
        super().__init__(f"{len(keys)} images are being bought elsewhere")
        self.keys = keys


class Crowded(Exception):
    """As many requests of this account are under way, over all processes, as it allows: ask again soon. Never
    shown to users."""


class StaleFence(Exception):
    """This worker lost the job to another; whatever it holds must not be written. Never shown to users."""
