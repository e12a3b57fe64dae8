"""A client that speaks both wire formats, and pictures to send."""

import base64
from io import BytesIO

import httpx
import numpy as np
from PIL import Image

from app.sandbox.images import Images

TRAFFIC_SIGNS = "43434343-4343-4343-8343-434343434343"
IMAGENET = "10001000-1000-4000-8000-100010001000"


def picture(seed: int = 0, side: int = 128) -> Images:
    """Coarse random colours, uint8 (side, side, 3)."""
    cells = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(cells).resize((side, side), Image.Resampling.BICUBIC))


def encoded(image: Images, kind: str = "PNG") -> bytes:
    """The image as a file."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


class Client:
    """Speaks both wire formats with one key."""

    def __init__(self, http: httpx.Client, key: str) -> None:
        self.http = http
        self.key = key

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Key {self.key}"}

    def clarifai(
        self, *images: bytes, model: str = "nsfw-recognition", path: str | None = None, **config: object
    ) -> httpx.Response:
        """Predict `images` in one request; `config` is the output_config."""
        inputs = [
            {"id": f"q-{n}", "data": {"image": {"base64": base64.b64encode(image).decode()}}}
            for n, image in enumerate(images)
        ]
        body = {"inputs": inputs, "model": {"output_info": {"output_config": config}}}
        return self.http.post(path or f"/v2/models/{model}/outputs", json=body, headers=self.authorization)

    def custom_vision(
        self,
        content: bytes,
        path: str = "image/nostore",
        name: str = "traffic-signs",
        project: str = TRAFFIC_SIGNS,
        content_type: str = "application/octet-stream",
    ) -> httpx.Response:
        """Classify one image."""
        url = f"/customvision/v3.1/Prediction/{project}/classify/iterations/{name}/{path}"
        headers = {"Prediction-Key": self.key, "Content-Type": content_type}
        return self.http.post(url, content=content, headers=headers)

    def faults(self, **switches: object) -> None:
        """Set fault switches; they must be good."""
        self.http.post("/faults", json=switches).raise_for_status()

    def bill(self) -> dict[str, object]:
        """This key's part of the bill."""
        return self.http.get("/bill").json()["keys"][self.key]
