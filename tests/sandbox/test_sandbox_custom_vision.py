"""Custom Vision's wire format: paths in any case, raw and multipart bodies, three kinds of error body."""

import httpx
import pytest
from sandbox_client import IMAGENET, TRAFFIC_SIGNS, Client, encoded, picture

from app.sandbox.multipart import part


def form(image: bytes, name: str = "imageData", extra: str = "") -> tuple[bytes, str]:
    """A multipart body as the Python SDK writes it: no filename, no type of the part."""
    boundary = "b0undary"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode()
    return head + image + f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


@pytest.mark.parametrize("version", ["v3.0", "v3.1", "v3.1-preview"])
@pytest.mark.parametrize("segment", ["Prediction", "prediction", "PREDICTION"])
@pytest.mark.parametrize("store", ["image", "image/nostore"])
def test_paths(client: Client, version: str, segment: str, store: str) -> None:
    path = f"/customvision/{version}/{segment}/{TRAFFIC_SIGNS}/classify/iterations/traffic-signs/{store}"
    headers = {"Prediction-Key": client.key, "Content-Type": "application/octet-stream"}
    reply = client.http.post(path, params={"application": "x"}, content=encoded(picture()), headers=headers)
    assert reply.status_code == 200
    body = reply.json()
    assert set(body) == {"id", "project", "iteration", "created", "predictions"}
    assert body["project"] == TRAFFIC_SIGNS


def test_all_tags_come_best_first(client: Client) -> None:
    first, second = (client.custom_vision(encoded(picture())).json() for _ in range(2))
    values = [found["probability"] for found in first["predictions"]]
    assert len(values) == 43
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1, abs=1e-5)
    assert {found["tagType"] for found in first["predictions"]} == {"Regular"}
    assert len({found["tagId"] for found in first["predictions"]}) == 43
    assert first["predictions"] == second["predictions"]
    assert first["iteration"] == second["iteration"]
    assert first["id"] != second["id"]


@pytest.mark.parametrize("name", ["imagenet", "imagenet-128", "imagenet-224"])
def test_imagenet_in_this_shape(client: Client, name: str) -> None:
    reply = client.custom_vision(encoded(picture()), project=IMAGENET, name=name)
    assert len(reply.json()["predictions"]) == 1000


@pytest.mark.parametrize("extra", ["", '; filename="x.png"', '; filename="x.png"\r\nContent-Type: image/png'])
def test_multipart(client: Client, extra: str) -> None:
    body, kind = form(encoded(picture()), extra=extra)
    reply = client.custom_vision(body, content_type=kind)
    raw = client.custom_vision(encoded(picture()))
    assert reply.json()["predictions"] == raw.json()["predictions"]


def test_multipart_of_more_than_a_megabyte(client: Client) -> None:
    image = encoded(picture(0, 700), "BMP")
    assert len(image) > 1_400_000
    body, kind = form(image)
    assert client.custom_vision(body, content_type=kind).status_code == 200


def test_a_part_may_hold_any_bytes_and_stand_anywhere() -> None:
    content = bytes(range(256)) + b"\r\n--other\r\n\r\n"
    other = b'--b0undary\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
    body, kind = form(content)
    assert part(other + body, kind, "imageData") == content
    assert part(other + body, kind, "note") == b"hello"
    assert part(other + body, kind, "absent") is None
    assert part(body, "multipart/form-data", "imageData") is None


def problem(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["code"]


def test_errors_of_the_service(client: Client) -> None:
    good = encoded(picture())
    wrong_part, kind = form(good, name="file")
    assert problem(client.custom_vision(b"junk")) == (400, "BadRequestImageFormat")
    assert problem(client.custom_vision(b"")) == (400, "BadRequestImageStream")
    assert problem(client.custom_vision(wrong_part, content_type=kind)) == (400, "BadRequestImageStream")
    assert problem(client.custom_vision(good[:100])) == (400, "BadRequestImageFormat")
    assert problem(client.custom_vision(good + bytes(4 << 20))) == (400, "BadRequestImageSizeBytes")
    assert problem(client.custom_vision(encoded(picture(0, 16), "TIFF"))) == (400, "BadRequestImageFormat")
    thin = encoded(picture(0, 64)[:2])
    assert problem(client.custom_vision(thin)) == (400, "BadRequestImageDimensions")
    assert problem(client.custom_vision(good, content_type="text/plain")) == (415, "UnsupportedMediaType")
    assert problem(client.custom_vision(b'{"url": "http://127.0.0.1:1/"}', path="url/nostore")) == (
        400,
        "BadRequestImageUrl",
    )
    assert client.bill()["billable_queries"] == 0


def test_errors_in_the_address(client: Client) -> None:
    good = encoded(picture())
    assert problem(client.custom_vision(good, project="none")) == (400, "BadRequestInvalidIds")
    unknown = "00000000-0000-4000-8000-000000000000"
    assert problem(client.custom_vision(good, project=unknown)) == (404, "NotFoundProject")
    assert problem(client.custom_vision(good, name="other")) == (400, "BadRequestInvalidPublishName")
    assert problem(client.custom_vision(good, path="image/elsewhere")) == (404, "NotFound")


@pytest.mark.parametrize("key", [None, "stranger"])
def test_keys(client: Client, key: str | None) -> None:
    headers = {"Content-Type": "application/octet-stream"} | ({"Prediction-Key": key} if key else {})
    path = f"/customvision/v3.1/prediction/{TRAFFIC_SIGNS}/classify/iterations/traffic-signs/image"
    reply = client.http.post(path, content=encoded(picture()), headers=headers)
    assert reply.status_code == 401
    assert reply.json()["statusCode"] == 401
    assert reply.json()["message"].startswith("Access denied due to invalid subscription key")


def test_a_body_far_over_the_limit_is_refused_by_the_gateway(client: Client) -> None:
    reply = client.custom_vision(bytes(9 << 20))
    assert reply.status_code == 413
    assert reply.json()["statusCode"] == 413


@pytest.mark.parametrize(("path", "limit"), [("image", 10), ("image/nostore", 20)])
def test_rate_limits_of_the_standard_tier(client: Client, path: str, limit: int) -> None:
    image = encoded(picture(0, 32))
    replies = [client.custom_vision(image, path=path) for _ in range(limit + 2)]
    assert [reply.status_code for reply in replies] == [200] * limit + [429] * 2
    assert replies[-1].headers["Retry-After"] == "1"
    error = replies[-1].json()["error"]
    assert error["code"] == "429"
    assert "Please retry after 1 second." in error["message"]
    bill = client.bill()
    assert (bill["throttled"], bill["billable_queries"], bill["highest_rps"]) == (2, limit, limit + 2)
