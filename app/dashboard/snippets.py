"""Lines to copy that ask an endpoint. A test runs every one of them as it is shown."""

from __future__ import annotations

import json
import shlex
from typing import Literal, NamedTuple

from app.dashboard.web import segment


class Snippet(NamedTuple):
    title: str
    language: Literal["sh", "python"]
    text: str
    needs: str = ""


def of_endpoint(host: str, name: str, *, keys: bool, record: object = None) -> list[Snippet]:
    """curl, Python, and the four formats of other services, which carry images; with a `record` (JSON value)
    the first two alone, asking about it. With `keys` they take the key from REPROG_API_KEY."""
    name = segment(name)
    url = f"{host}/v1/endpoints/{name}/predict"
    bearer = ' \\\n  -H "Authorization: Bearer $REPROG_API_KEY"' if keys else ""
    if record is not None:
        body = json.dumps({"inputs": [record]}, ensure_ascii=False)
        quoted = shlex.quote(body)
        line = f'curl -sS {url}{bearer} \\\n  -H "Content-Type: application/json" -d {quoted}'
        return [Snippet("curl", "sh", line), Snippet("Python", "python", _python(url, keys, body))]
    key = "$REPROG_API_KEY" if keys else "none"
    curl = f'curl -sS {url}{bearer} \\\n  -H "Content-Type: image/png" --data-binary @image.png'
    azure = (
        f"curl -sS {host}/compat/azure/customvision/v3.0/prediction/any/classify/iterations/{name}/image \\\n"
        f'  -H "Prediction-Key: {key}" -H "Content-Type: application/octet-stream" \\\n'
        "  --data-binary @image.png"
    )
    clarifai = (
        f"""printf '{{"inputs":[{{"data":{{"image":{{"base64":"%s"}}}}}}]}}' {_BASE64} |\n"""
        f"  curl -sS {host}/compat/clarifai/v2/models/{name}/outputs -d @- \\\n"
        f'  -H "Authorization: Key {key}" -H "Content-Type: application/json"'
    )
    oip = (
        f"""printf '{{"inputs":[{{"name":"image","shape":[1],"datatype":"BYTES","data":["%s"]}}]}}' \\\n"""
        f"  {_BASE64} |\n"
        f"  curl -sS {host}/v2/models/{name}/infer -d @-{bearer} \\\n"
        '  -H "Content-Type: application/json"'
    )
    return [
        Snippet("curl", "sh", curl),
        Snippet("Python", "python", _python(url, keys, None)),
        Snippet("Hugging Face", "python", _hub(host, name, keys), "huggingface_hub"),
        Snippet("Azure Custom Vision", "sh", azure),
        Snippet("Clarifai", "sh", clarifai),
        Snippet("Open Inference Protocol v2", "sh", oip),
    ]


_BASE64 = '"$(base64 < image.png | tr -d "\\n")"'


def _python(url: str, keys: bool, body: str | None) -> str:
    imports = ["import json", *(["import os"] if keys else []), "import urllib.request"]
    headers = f'"Content-Type": "{"application/json" if body else "image/png"}"'
    read = 'open("image.png", "rb").read()' if body is None else f"{body!r}.encode()"
    if keys:
        headers += ', "Authorization": "Bearer " + os.environ["REPROG_API_KEY"]'
    return "\n".join(
        [
            *imports,
            "",
            f'url = "{url}"',
            f"headers = {{{headers}}}",
            f"asked = {read}",
            "with urllib.request.urlopen(urllib.request.Request(url, asked, headers)) as answer:",
            '    print(json.load(answer)[0], answer.headers["X-Cost"])',
        ]
    )


def _hub(host: str, name: str, keys: bool) -> str:
    return "\n".join(
        [
            *(["import os", ""] if keys else []),
            "from huggingface_hub import InferenceClient",
            "",
            "client = InferenceClient(",
            f'    model="{host}/compat/hf/{name}",',
            *(['    token=os.environ["REPROG_API_KEY"],'] if keys else []),
            ")",
            'print(client.image_classification("image.png")[0])',
        ]
    )
