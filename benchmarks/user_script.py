"""The script a user would write: httpx and Pillow, one request per image, sixteen at a time."""

from __future__ import annotations

import asyncio
import base64
import io

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

AT_ONCE = 16


async def score(client: httpx.AsyncClient, url: str, key: str, image: NDArray[np.uint8]) -> dict[str, float]:
    """Scores of one image."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    body = {"inputs": [{"id": "0", "data": {"image": {"base64": data}}}]}
    response = await client.post(url, json=body, headers={"Authorization": f"Key {key}"})
    response.raise_for_status()
    concepts = response.json()["outputs"][0]["data"]["concepts"]
    return {concept["name"]: concept["value"] for concept in concepts}


async def score_all(url: str, key: str, images: NDArray[np.uint8]) -> list[dict[str, float]]:
    """Scores of all images, in their order."""
    room = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(timeout=60, trust_env=False) as client:

        async def one(image: NDArray[np.uint8]) -> dict[str, float]:
            async with room:
                return await score(client, url, key, image)

        return list(await asyncio.gather(*map(one, images)))
