"""`reprog datasets`: labelled images in, what is wrong with them out."""

from __future__ import annotations

import mimetypes
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Annotated, Any

import httpx
import typer

from app.remote.client import After, Json, Limit, Repeat, call, resource, save, show

_COLUMNS = ("id", "name", "classes", "counts")
_READING = 3600.0  # seconds a large upload may be looked through

group = resource("datasets", _COLUMNS)


@group.command("upload")
def upload(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False)],
    label: Annotated[
        list[str] | None, typer.Option(help="Of single images, one for each, in their order.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Default: the file's.")] = None,
    seed: Annotated[int, typer.Option(help="Of the splits that are not given.")] = 0,
    format_: Annotated[str, typer.Option("--format", help="Default: seen from the file.")] = "auto",
    label_column: Annotated[str | None, typer.Option(help="Of a table; default: label, class.")] = None,
    allow: Annotated[str | None, typer.Option(help="Go on with: leaks, two_labels.")] = None,
    background: Annotated[str | None, typer.Option(help="Under transparent pixels; default: white.")] = None,
    key: Repeat = None,
    as_json: Json = False,
) -> None:
    """Upload a file, or single images with a label each. Warnings of the report go to stderr."""
    asked = {"format": format_, "seed": seed, "label_column": label_column, "allow": allow}
    asked |= {"background": background, "name": name or (files[0].stem if len(files) == 1 else None)}
    waiting = httpx.Timeout(_READING, connect=5)
    with ExitStack() as opened:
        streams = [(file, opened.enter_context(file.open("rb"))) for file in files]
        sent = _one(*streams[0]) if len(files) == 1 and not label else _several(streams, label or [])
        answer = call("POST", "/v1/datasets", key=key, params=asked, timeout=waiting, **sent).json()
    for warning in (answer.get("report") or {}).get("warnings", []):
        typer.echo(f"warning: {warning}", err=True)
    show(answer, as_json, _COLUMNS)


def _kind(file: Path) -> str:
    guessed = "application/x-npz" if file.suffix == ".npz" else mimetypes.guess_type(file.name)[0]
    return guessed or "application/octet-stream"


def _one(file: Path, stream: IO[bytes]) -> dict[str, Any]:
    """A file as the body itself."""
    return {"content": stream, "headers": {"content-type": _kind(file)}}


def _several(streams: Sequence[tuple[Path, IO[bytes]]], labels: list[str]) -> dict[str, Any]:
    """A form: a `file` each, and a `label` each."""
    return {
        "files": [("file", (file.name, stream, _kind(file))) for file, stream in streams],
        "data": {"label": labels},
    }


@group.command("report")
def report(ident: str, as_json: Json = False) -> None:
    """How the labels were read, duplicates, leaks, and every rejected file with its reason."""
    found: dict[str, Any] = call("GET", f"/v1/datasets/{ident}/report").json()
    if as_json:
        show(found, True, ())
        return
    typer.echo(f"{found['accepted']} of {found['files']} files accepted. {found['how_labels_were_read']}")
    for warning in found["warnings"]:
        typer.echo(f"warning: {warning}")
    show({"data": found["rejected"]}, False, ("file", "code", "reason"))


@group.command("items")
def items(
    ident: str,
    split: Annotated[str | None, typer.Option(help="train, val or test.")] = None,
    label: Annotated[str | None, typer.Option(help="Only of this class.")] = None,
    limit: Limit = 20,
    after: After = None,
    as_json: Json = False,
) -> None:
    """The images one by one."""
    given = {"split": split, "label": label, "limit": limit, "after": after}
    answer = call("GET", f"/v1/datasets/{ident}/items", params=given)
    show(answer.json(), as_json, ("n", "label", "split", "image"))


@group.command("image")
def image(
    ident: str,
    n: int,
    out: Annotated[Path, typer.Option("-o", "--out")] = Path("image.png"),
    as_json: Json = False,
) -> None:
    """Save one image as PNG."""
    save(call("GET", f"/v1/datasets/{ident}/items/{n}/image"), out, as_json)
