"""One call with one official client, unmodified; runs in the clients' own environment.

Standard input: {"client", "url", "key", "model", "image"} (a path). Standard output: [[label, score], ...] as
the client's own types give them, in the order of the answer.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Rows = list[list[Any]]


def custom_vision(url: str, key: str, model: str, image: Path) -> Rows:
    """Bytes (a part without a filename) and a file object (a part with one) give the same."""
    from azure.cognitiveservices.vision.customvision.prediction import CustomVisionPredictionClient
    from msrest.authentication import ApiKeyCredentials

    client = CustomVisionPredictionClient(url, ApiKeyCredentials(in_headers={"Prediction-key": key}))
    project, _, name = model.rpartition("/")
    answers = [client.classify_image_with_no_store(project, name, image.read_bytes())]
    with image.open("rb") as file:
        answers.append(client.classify_image(project, name, file))
    first, second = [[[tag.tag_name, tag.probability] for tag in answer.predictions] for answer in answers]
    assert first == second
    assert answers[0].iteration
    return first


def clarifai(url: str, key: str, model: str, image: Path) -> Rows:
    """A batch with one bad input: the good one is answered."""
    from clarifai_grpc.channel.clarifai_channel import ClarifaiChannel
    from clarifai_grpc.grpc.api import resources_pb2 as r
    from clarifai_grpc.grpc.api import service_pb2, service_pb2_grpc
    from clarifai_grpc.grpc.api.status import status_code_pb2 as codes

    stub = service_pb2_grpc.V2Stub(ClarifaiChannel.get_json_channel(base_url=url))
    who = r.UserAppIDSet(user_id="clarifai", app_id="main")
    described = stub.GetModel(
        service_pb2.GetModelRequest(model_id=model, user_app_id=who),
        metadata=(("authorization", f"Key {key}"),),
    )
    assert described.model.id == model, described
    assert described.model.model_version.id
    inputs = [
        r.Input(id=name, data=r.Data(image=r.Image(base64=data)))
        for name, data in (("good", image.read_bytes()), ("bad", b"no image"))
    ]
    request = service_pb2.PostModelOutputsRequest(model_id=model, user_app_id=who, inputs=inputs)
    answer = stub.PostModelOutputs(request, metadata=(("authorization", f"Key {key}"),))
    assert answer.status.code == codes.MIXED_STATUS, answer.status
    good, bad = answer.outputs
    assert (good.input.id, bad.input.id) == ("good", "bad")
    assert bad.status.code != codes.SUCCESS
    assert good.model.model_version.id
    return [[concept.name, concept.value] for concept in good.data.concepts]


def huggingface(url: str, key: str, model: str, image: Path) -> Rows:
    """Raw bytes without a Content-Type, and JSON with top_k."""
    from huggingface_hub import InferenceClient

    client = InferenceClient(model=f"{url}/models/{model}", token=key)
    whole = client.image_classification(image.read_bytes())
    [best] = client.image_classification(str(image), top_k=1)
    assert best.label == whole[0].label
    return [[row.label, row.score] for row in whole]


def triton(url: str, key: str, model: str, image: Path) -> Rows:
    """Readiness, metadata, then BYTES by the binary extension, in JSON as base64, and with the classification
    extension."""
    from base64 import b64encode

    import numpy as np
    import tritonclient.http as http

    parts = urlsplit(url)
    headers = {"Authorization": f"Bearer {key}"}  # copied for each call: the client leaves its own in there
    client = http.InferenceServerClient(parts.netloc + parts.path)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(model, headers=headers)
    described = client.get_model_metadata(model, headers=headers)
    tensor = http.InferInput(described["inputs"][0]["name"], [1], "BYTES")
    tensor.set_data_from_numpy(np.array([image.read_bytes()], dtype=object))
    name = described["outputs"][0]["name"]
    scores = client.infer(model, [tensor], headers=dict(headers)).as_numpy(name)
    assert scores.shape[0] == 1
    assert abs(float(scores.sum()) - 1) < 1e-4
    text = http.InferInput(described["inputs"][0]["name"], [1], "BYTES")
    text.set_data_from_numpy(np.array([b64encode(image.read_bytes())], dtype=object), binary_data=False)
    as_json = http.InferRequestedOutput(name, binary_data=False)
    again = client.infer(model, [text], outputs=[as_json], headers=dict(headers)).as_numpy(name)
    assert np.allclose(scores, again)
    wanted = http.InferRequestedOutput(name, class_count=scores.shape[1])
    named = client.infer(model, [tensor], outputs=[wanted], headers=dict(headers)).as_numpy(name)
    rows = [row.decode().split(":", 2) for row in named.ravel()]
    return [[label, float(score)] for score, _, label in rows]


def rekognition(url: str, key: str, model: str, image: Path) -> Rows:
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "rekognition", endpoint_url=url, region_name="us-east-1", aws_access_key_id=key,
        aws_secret_access_key="word", config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip
    moderated = client.detect_moderation_labels(Image={"Bytes": image.read_bytes()}, MinConfidence=0)
    assert moderated["ModerationModelVersion"]
    answer = client.detect_labels(Image={"Bytes": image.read_bytes()}, MinConfidence=0, MaxLabels=3)
    assert len(answer["Labels"]) == 3
    try:
        client.detect_labels(Image={"Bytes": b"no image"})
    except client.exceptions.InvalidImageFormatException:
        return [[row["Name"], row["Confidence"]] for row in moderated["ModerationLabels"]]
    raise AssertionError("a bad image was answered")


def openai(url: str, key: str, model: str, image: Path) -> Rows:
    from base64 import b64encode

    from openai import AuthenticationError, OpenAI

    def ask(key: str) -> Any:
        data = f"data:image/png;base64,{b64encode(image.read_bytes()).decode()}"
        client = OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0)
        return client.moderations.create(
            model=model, input=[{"type": "image_url", "image_url": {"url": data}}]
        )

    try:
        ask("stranger")
    except AuthenticationError as error:
        if error.code != "invalid_api_key":
            raise
    scores = ask(key).results[0].category_scores.model_dump(by_alias=True)
    return [[name, score] for name, score in scores.items()]


def content_safety(url: str, key: str, model: str, image: Path) -> Rows:
    from azure.ai.contentsafety import ContentSafetyClient
    from azure.ai.contentsafety.models import AnalyzeImageOptions, ImageData
    from azure.core.credentials import AzureKeyCredential

    client = ContentSafetyClient(url, AzureKeyCredential(key), retry_total=0)
    answer = client.analyze_image(AnalyzeImageOptions(image=ImageData(content=image.read_bytes())))
    return [[row.category, row.severity] for row in answer.categories_analysis]


def google(url: str, key: str, model: str, image: Path) -> Rows:
    from google.api_core.client_options import ClientOptions
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import vision

    client = vision.ImageAnnotatorClient(
        transport="rest", credentials=AnonymousCredentials(), client_options=ClientOptions(api_endpoint=url)
    )

    def ask(feature: vision.Feature.Type) -> vision.AnnotateImageResponse:
        request = {
            "image": {"content": image.read_bytes()},
            "features": [{"type_": feature, "max_results": 3}],
        }
        return client.annotate_image(request, metadata=[("x-goog-api-key", key)])

    labels = ask(vision.Feature.Type.LABEL_DETECTION).label_annotations
    assert len(labels) == 3
    safe = ask(vision.Feature.Type.SAFE_SEARCH_DETECTION).safe_search_annotation
    return [["adult", int(safe.adult)], ["medical", int(safe.medical)], ["racy", int(safe.racy)]]


def sightengine(url: str, key: str, model: str, image: Path) -> Rows:
    from sightengine.client import SightengineClient

    check = SightengineClient("user", key).check(model)
    check.endpoint = f"{url}/1.0/"
    answer = check.set_bytes(image.read_bytes())
    assert answer["status"] == "success", answer
    return [[name, score] for name, score in answer["nudity"].items()]


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    call = globals()[asked.pop("client")]
    print(json.dumps(call(**{**asked, "image": Path(asked["image"])})))
