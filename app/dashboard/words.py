"""Numbers, times and states as people read them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from jinja2 import Undefined
from markupsafe import Markup

from app.contracts import ScoreKind
from app.jobs.report import BASELINES
from app.reprogramming.metrics import wilson

_SIGNS = {"USD": "$", "EUR": "€", "GBP": "£"}
_DASH = "–"

#: status -> (mark, tone): the mark says it without colour.
STATES = {
    "validating": ("○", "wait"),
    "queued": ("○", "wait"),
    "running": ("▶", "live"),
    "pausing": ("‖", "wait"),
    "paused": ("‖", "warn"),
    "cancelling": ("×", "wait"),
    "succeeded": ("✓", "good"),
    "failed": ("!", "bad"),
    "cancelled": ("×", "off"),
}
REASONS = {
    "budget_exhausted": "The budget is used up. The best program so far was kept, tested and published.",
    "max_queries": "The query limit is reached. The best program so far was kept, tested and published.",
    "deadline": "The deadline has passed. The best program so far was kept and tested.",
    "paused_by_user": "You paused it. Nothing is asked until you resume; what was paid for is kept.",
    "after_probe": "The first pass is paid. Read what to expect, then resume or cancel.",
    "cancelled_by_user": "You cancelled it. Programs stored so far stay.",
    "imported": "The program was learned elsewhere and imported.",
    "provider_key_refused": "The provider refuses the key. Set a new secret on the connection, then resume.",
    "provider_quota_exhausted": "The account's quota at the provider is used up. Raise it, then resume.",
    "provider_down": "The provider does not answer. The job goes on when it is back; resume tries at once.",
    "source_model_changed": "The provider changed the model. What was learned may not hold: clone the job.",
    "provider_unavailable": "The provider does not answer. Resume when it is back; paid answers are kept.",
    "provider_unreachable": "The provider cannot be reached. Resume when it is back; paid answers are kept.",
}
STATE_WORDS = {
    "validating": "Checking what was asked.",
    "queued": "Waiting for a worker to take it.",
    "running": "Learning. You can close this page; the job goes on.",
    "pausing": "Waiting for the requests in flight, then it rests.",
    "paused": "Resting. Nothing is asked or paid.",
    "cancelling": "Waiting for the requests in flight, then it stops for good.",
    "succeeded": "Done: learned, tested once on images it never saw.",
    "failed": "It could not go on. Paid answers are kept: a clone asks nothing twice.",
    "cancelled": "Stopped for good. Programs stored so far stay.",
}
PARTS = {
    "scores": "Scores of the views alone",
    "scores_and_pixels": "Scores, and pixels beside them",
    "pixels": "Pixels alone",
}
#: What a provider's scores are, by their kind.
KINDS: dict[ScoreKind, str] = {
    "probability": "shares from 0 to 1 that add up to 1",
    "independent": "from 0 to 1, each label for itself",
    "percent": "percent",
    "logit": "numbers without bounds or unit; higher is more",
    "severity": "grades of severity; higher is more",
    "likelihood": "grades of likelihood; higher is more",
    "label": "1 for the label that was named, no scores",
}
METHODS = {
    "auto": ("Automatic", "The best known recipe for your budget. Start here."),
    "race": ("Program race", "Many programs start, the weak ones drop out, the best are combined."),
    "views": ("Random views", "Random programs, several views of each image, one fitted head."),
    "bar": ("BAR", "The paper's method: a visual prompt learned by zeroth-order descent."),
    "zoo": ("ZOO", "Coordinate-wise zeroth-order descent."),
    "spsa": ("SPSA-GC", "Simultaneous perturbation with gradient correction."),
    "nes": ("NES", "Natural evolution strategies with antithetic samples."),
    "cma_es": ("CMA-ES", "Covariance-matrix adaptation over few parameters."),
    "prior": ("Prior-guided", "Descent along the direction that worked before, and random ones."),
    "baseline": ("Baseline", "No program: what the API's scores can do as they are."),
}


def money(value: Mapping[str, Any] | None, digits: int = 2) -> str:
    """{"amount", "currency"} as $1.28; what is under a hundredth keeps the digits that matter."""
    if value is None:
        return "no cap"
    number, currency = float(value["amount"]), str(value["currency"])
    digits = digits if number else 2
    while digits < 6 and number and round(abs(number), digits) < 10 ** (1 - digits):
        digits += 1
    sign = _SIGNS.get(currency)
    shown = f"{number:,.{digits}f}"
    return f"{sign}{shown}" if sign else f"{shown} {currency}"


def amount(value: Mapping[str, Any] | None) -> str:
    """An amount as a field has it: 5.00, 0.0012; "" for none."""
    if value is None:
        return ""
    whole, _, part = str(value["amount"]).partition(".")
    return f"{whole}.{part.rstrip('0').ljust(2, '0')}"


def number(value: float | None) -> str:
    if value is None:
        return _DASH
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def percent(value: float | Undefined | None, digits: int = 1) -> str:
    return _DASH if value is None or isinstance(value, Undefined) else f"{100 * value:.{digits}f} %"


def interval(ends: list[float] | None, digits: int = 1) -> str:
    """A 95 % interval in percent."""
    return "" if not ends else f"{100 * ends[0]:.{digits}f} to {100 * ends[1]:.{digits}f} %"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return _DASH
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def milliseconds(seconds: float | None) -> str:
    return _DASH if seconds is None else f"{seconds * 1000:,.0f} ms"


def when(value: str | float | None) -> str | Markup:
    """A time element in UTC; the script shows it in the reader's zone."""
    if value is None:
        return _DASH
    moment = (
        datetime.fromtimestamp(value, UTC)
        if isinstance(value, float | int)
        else datetime.fromisoformat(value)
    )
    shown = moment.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        shown.isoformat(), shown.strftime("%-d %b %Y, %H:%M UTC")
    )


def pretty(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def brief(value: object) -> str:
    """A document in one line."""
    return json.dumps(value, ensure_ascii=False, separators=(", ", ": "))


def short(ident: str | None) -> str:
    """The end of an id: enough to tell two apart."""
    return _DASH if not ident else ident if len(ident) < 16 else f"…{ident[-8:]}"


def reason(job: Mapping[str, Any]) -> str:
    """Status and reason of a job document in words."""
    said = REASONS.get(job["status_reason"] or "")
    if error := job["error"]:
        return f"{error['detail']} {error.get('hint') or ''}".strip()
    return said or STATE_WORDS[job["status"]]


def plural(count: int, one: str, many: str | None = None) -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def proportion(value: float, whole: float) -> float:
    """value / whole in [0, 100]; 0 for a whole of nothing."""
    return round(100 * min(max(value / whole, 0.0), 1.0), 3) if whole else 0.0


FILTERS: dict[str, Callable[..., Any]] = {
    "money": money, "amount": amount, "number": number, "percent": percent, "interval": interval,
    "duration": duration, "ms": milliseconds, "when": when, "pretty": pretty, "brief": brief, "short": short,
    "reason": reason, "proportion": proportion,
}  # fmt: skip
GLOBALS: dict[str, Any] = {
    "STATES": STATES, "BASELINES": BASELINES, "METHODS": METHODS, "plural": plural, "wilson": wilson,
}  # fmt: skip
