"""A provider's terms: asked about once, before anything is sent to somebody else's service."""

from __future__ import annotations

from urllib.parse import urlsplit

from app.errors import BadRequest
from app.gateway import guard
from app.providers import PROVIDERS


def refuse_public(provider: str, base_url: str) -> None:
    """Raises BadRequest `terms_not_acknowledged` for a public host. Resolves the name, which blocks."""
    if not guard.is_public(base_url):
        return
    link = PROVIDERS[provider].defaults.terms or f"the terms of {urlsplit(base_url).hostname}"
    raise BadRequest(
        f"Jobs and endpoints will send altered copies of your images, often thousands, to "
        f"{urlsplit(base_url).hostname}, and learn from its answers; many terms of use limit that.",
        code="terms_not_acknowledged",
        param="terms_acknowledged",
        hint=f'Read {link}; if they allow it, send "terms_acknowledged": true.',
    )
