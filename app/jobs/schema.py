"""The published JSON schema of a job file: `POST /v1/jobs` with the options of every method spelled out."""

from __future__ import annotations

from typing import Any

from app.jobs.spec import JobSpec
from app.methods import schemas


def job_schema() -> dict[str, Any]:
    """JSON Schema 2020-12. `method` is one of the methods, told apart by `type`; without it the job is
    `auto`."""
    schema = JobSpec.model_json_schema()
    defs: dict[str, Any] = schema["$defs"]
    defs["MethodSpec"] = {
        "description": "`type` names the method; the other members are its options.",
        "type": "object",
        "oneOf": [_method(name, options, defs) for name, options in schemas().items()],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Reprog job",
        "description": "A job file for `reprog jobs create -f`, in YAML or JSON.",
    } | {name: value for name, value in schema.items() if name not in ("title", "description")}


def _method(name: str, options: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """One method's options with its name as `type`. Its definitions move to `defs`."""
    defs |= options.pop("$defs", {})
    kind = {"const": name, **({"default": name} if name == "auto" else {})}
    required = [*([] if name == "auto" else ["type"]), *options.get("required", [])]
    return options | {
        "title": name,
        "properties": {"type": kind, **options.get("properties", {})},
        **({"required": required} if required else {}),
    }
