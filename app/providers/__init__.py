"""All providers: one file each, and one line in this table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from app.contracts import Provider
from app.errors import BadRequest
from app.providers.azure_content_safety import AzureContentSafety
from app.providers.clarifai import Clarifai
from app.providers.custom_vision import CustomVision
from app.providers.google_vision import GoogleVision
from app.providers.http_json import HttpJson
from app.providers.huggingface import HuggingFace
from app.providers.imagga import Imagga
from app.providers.open_inference import OpenInference
from app.providers.openai_moderation import OpenAIModeration
from app.providers.rekognition import Rekognition
from app.providers.sightengine import Sightengine
from app.providers.wire import Defaults

__all__ = ["PROVIDERS", "Defaults", "ProviderType", "make"]

M = TypeVar("M", bound=BaseModel)


class ProviderType(Provider, Protocol):
    """A provider class: `Model` and `Options` are pydantic models of its own settings (their JSON schema is
    the documentation), `defaults` what to assume of an account."""

    Model: ClassVar[type[BaseModel]]
    Options: ClassVar[type[BaseModel]]
    defaults: ClassVar[Defaults]

    def __init__(self, base_url: str, model: Any, secret: str, options: Any) -> None: ...  # noqa: ANN401


PROVIDERS: Mapping[str, type[ProviderType]] = {
    "clarifai": Clarifai,
    "custom_vision": CustomVision,
    "http_json": HttpJson,
    "huggingface": HuggingFace,
    "open_inference": OpenInference,
    "google_vision": GoogleVision,
    "rekognition": Rekognition,
    "azure_content_safety": AzureContentSafety,
    "openai_moderation": OpenAIModeration,
    "sightengine": Sightengine,
    "imagga": Imagga,
}


def make(
    provider: str,
    base_url: str,
    model: Mapping[str, Any],
    secret: str,
    options: Mapping[str, Any],
    environment: Callable[[str], str | None] | None = None,
) -> Provider:
    """The adapter of a connection. `environment` looks up the variables that templates of `http_json` name;
    without it nothing can be sent that needs one. Raises BadRequest naming the field (`model.project_id`)
    that is wrong."""
    kind = PROVIDERS.get(provider)
    if kind is None:
        raise BadRequest(
            f"There is no provider {provider!r}.",
            code="unknown_provider",
            param="provider",
            hint=f"One of: {', '.join(PROVIDERS)}.",
        )
    if secret and not (secret.isascii() and secret.isprintable()):
        raise BadRequest("A secret holds printable ASCII characters only.", param="secret")
    made = kind(
        base_url, _validated(kind.Model, model, "model"), secret, _validated(kind.Options, options, "options")
    )
    if environment is not None and isinstance(made, HttpJson):
        made.lend(environment)
    return made


def _validated(kind: type[M], values: Mapping[str, Any], param: str) -> M:
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        path = ".".join([param, *(str(part) for part in first["loc"])])
        raise BadRequest(f"{path}: {first['msg']}.", param=path) from None
