"""F14 to F17 through whole jobs: whatever the files of a data set are, what arrives is 8-bit RGB of the right
size in the form the service takes, and what the service does to pixels is told."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from fault_cases import Service, sent, tags
from numpy.typing import NDArray
from PIL import Image
from test_fault_jobs import Place, installation, place  # noqa: F401 - fixtures

SIDE = 80  # pixels: the least that every service here takes
Pixels = NDArray[np.uint8]


def grey(pixels: Pixels) -> Pixels:
    return np.repeat(pixels[..., :1], 3, axis=2)


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def transparent(pixels: Pixels) -> tuple[bytes, Pixels]:
    """The left half is transparent, and other colours are hidden under it."""
    alpha = np.full((SIDE, SIDE, 1), 255, np.uint8)
    alpha[:, : SIDE // 2] = 0
    shown = pixels.copy()
    shown[:, : SIDE // 2] = 255
    return saved(Image.fromarray(np.concatenate([pixels, alpha], axis=2))), shown


def half_transparent(pixels: Pixels) -> tuple[bytes, Pixels]:
    alpha = np.full((SIDE, SIDE, 1), 128, np.uint8)
    shown = np.rint(pixels * (128 / 255) + 255 * (127 / 255)).astype(np.uint8)
    return saved(Image.fromarray(np.concatenate([pixels, alpha], axis=2))), shown


def grey_with_alpha(pixels: Pixels) -> tuple[bytes, Pixels]:
    alpha = np.full((SIDE, SIDE), 255, np.uint8)
    alpha[: SIDE // 2] = 0
    shown = grey(pixels)
    shown[: SIDE // 2] = 255
    return saved(Image.fromarray(np.stack([pixels[..., 0], alpha], axis=2))), shown


def palette(pixels: Pixels) -> tuple[bytes, Pixels]:
    image = Image.fromarray(pixels).quantize(64)
    return saved(image), np.asarray(image.convert("RGB"))


def palette_with_a_hole(pixels: Pixels) -> tuple[bytes, Pixels]:
    image = Image.fromarray(pixels).quantize(64)
    shown = np.asarray(image.convert("RGB")).copy()
    shown[np.asarray(image) == 0] = 255
    return saved(image, transparency=0), shown


def sixteen_bits(pixels: Pixels) -> tuple[bytes, Pixels]:
    levels = pixels[..., 0].astype(np.uint16) * 256 + 77  # the low byte is not kept
    return saved(Image.fromarray(levels)), grey(pixels)


def two_levels(pixels: Pixels) -> tuple[bytes, Pixels]:
    image = Image.fromarray(pixels[..., 0]).convert("1", dither=Image.Dither.NONE)
    return saved(image), grey(np.asarray(image.convert("L"))[..., None])


def plain_grey(pixels: Pixels) -> tuple[bytes, Pixels]:
    return saved(Image.fromarray(pixels[..., 0])), grey(pixels)


def grey_jpeg(pixels: Pixels) -> tuple[bytes, Pixels]:
    return saved(Image.fromarray(pixels[..., 0]), "JPEG", quality=100), grey(pixels)


def cmyk(pixels: Pixels) -> tuple[bytes, Pixels]:
    """Under colours, no black: what the simplest conversion gives back."""
    return saved(Image.fromarray(pixels).convert("CMYK"), "JPEG", quality=100), pixels


def turned(pixels: Pixels) -> tuple[bytes, Pixels]:
    """A camera held sideways: the file lies, its EXIF says how, and it tells where it was taken."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a secret place"
    lying = np.rot90(pixels)
    return saved(Image.fromarray(lying), "JPEG", quality=100, subsampling=0, exif=exif), pixels


def with_metadata(pixels: Pixels) -> tuple[bytes, Pixels]:
    return saved(Image.fromarray(pixels), "TIFF", icc_profile=b"a profile", description="secret"), pixels


FILES: tuple[Callable[[Pixels], tuple[bytes, Pixels]], ...] = (
    transparent, half_transparent, grey_with_alpha, palette, palette_with_a_hole, sixteen_bits, two_levels,
    plain_grey, grey_jpeg, cmyk, turned, with_metadata,
)  # fmt: skip
LOSSY = {grey_jpeg.__name__, cmyk.__name__, turned.__name__}


def blocks(rng: np.random.Generator) -> Pixels:
    """Blocks of ten pixels: told apart from all others, and kept by a good JPEG."""
    return np.repeat(np.repeat(rng.integers(16, 240, (8, 8, 3), np.uint8), 10, axis=0), 10, axis=1)


def every_kind() -> tuple[bytes, list[Pixels]]:
    """A zip of two classes with one file of each kind, and what is to arrive of it."""
    out, rng = io.BytesIO(), np.random.default_rng(6)
    expected: list[Pixels] = []
    with zipfile.ZipFile(out, "w") as archive:
        for label in ("one", "two"):
            for make in FILES:
                file, shown = make(blocks(rng))
                archive.writestr(f"{label}/{make.__name__}.bin", file)
                expected.append(shown)
    return out.getvalue(), expected


def is_plain_png(file: bytes) -> bool:
    """PNG of 8-bit RGB with nothing in it but pixels."""
    if file[:8] != b"\x89PNG\r\n\x1a\n" or file[24:26] != b"\x08\x02":
        return False
    kinds, at = set[bytes](), 8
    while at < len(file):
        [length] = struct.unpack(">I", file[at : at + 4])
        kinds.add(file[at + 4 : at + 8])
        at += 12 + length
    return kinds == {b"IHDR", b"IDAT", b"IEND"}


def is_plain_jpeg(file: bytes) -> bool:
    """JPEG of three components without sub-sampling, EXIF or profile."""
    with Image.open(io.BytesIO(file)) as image:
        whole = image.format == "JPEG" and image.mode == "RGB" and not image.getexif()
        layers = {layer[1:3] for layer in getattr(image, "layer", [])}
        return whole and "icc_profile" not in image.info and layers == {(1, 1)}


@dataclass
class Picky(Service):
    """What some services do to images they did not think of: 500 for alpha, a crash for grey."""

    takes: Callable[[bytes], bool] = is_plain_png
    arrived: list[Pixels] = field(default_factory=list)
    refused: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        files = sent(self.name, await request.read())
        for file in files:
            with Image.open(io.BytesIO(file)) as image:
                if not self.takes(file):
                    self.refused += 1
                    if image.mode in ("L", "1", "I;16"):
                        assert request.transport is not None
                        request.transport.abort()
                    return web.Response(status=500, text="Internal Server Error")
                self.arrived.append(np.asarray(image))
        return await super().handle(request)


#: service -> its model, where it is not the one of `SERVICES`, and what it takes
FORMS: dict[str, tuple[str, dict[str, Any], Callable[[bytes], bool]]] = {
    name: (name, {}, is_plain_png)
    for name in (
        "custom_vision", "clarifai", "google_vision", "huggingface", "rekognition", "openai_moderation",
        "http_json",
    )
}  # fmt: skip
FORMS["http_json jpeg"] = "http_json", {"layout": "dict", "encode": "jpeg:100:444"}, is_plain_jpeg


@pytest.mark.parametrize("form", FORMS)
async def test_f15_f16_f17_every_kind_of_file_arrives_as_plain_rgb(place: Place, form: str) -> None:  # noqa: F811
    name, model, takes = FORMS[form]
    archive, expected = every_kind()
    data = await place.ok("POST", f"/v1/datasets?name={name}&seed=1", content=archive)
    assert data["report"]["rejected_total"] == 0
    service = Picky(name, [], takes=takes)
    async with service.serve():
        connection = await place.connect(service, **({"model": model} if model else {}))
        method = {"type": "baseline", "size": SIDE}
        ident = await place.create(connection, dataset_id=data["id"], method=method)
        job = await place.run(ident)
    assert (job["status"], job["error"]) == ("succeeded", None)
    assert service.refused == 0
    assert place.booked(ident, connection) == len(expected) == len(service.arrived)
    unseen = service.arrived
    for shown, make in zip(expected, FILES * 2, strict=True):
        assert {image.shape for image in unseen} == {(SIDE, SIDE, 3)}
        far = [np.abs(image.astype(int) - shown).mean() for image in unseen]
        lossy = make.__name__ in LOSSY or takes is is_plain_jpeg
        best = int(np.argmin(far))
        assert far[best] <= (4.0 if lossy else 1.0 if make is half_transparent else 0.0), make.__name__
        del unseen[best]


async def test_the_service_refuses_what_was_never_sent() -> None:
    """The checks above can fail."""
    pixels = blocks(np.random.default_rng(1))
    for make in FILES:
        assert not is_plain_png(make(pixels)[0]) or make is cmyk
        assert is_plain_png(saved(Image.fromarray(pixels)))
        assert not is_plain_png(saved(Image.fromarray(pixels), exif=b"Exif\x00\x00MM\x00*"))
    assert is_plain_jpeg(saved(Image.fromarray(pixels), "JPEG", subsampling=0))
    assert not is_plain_jpeg(saved(Image.fromarray(pixels), "JPEG"))
    assert not is_plain_jpeg(turned(pixels)[0])
    assert not is_plain_jpeg(grey_jpeg(pixels)[0])


async def test_f14_images_are_large_enough_or_it_is_told(place: Place) -> None:  # noqa: F811
    """Custom Vision stretches what is below 256 pixels: that is done here, or the owner reads of it."""
    service = Picky("custom_vision", [])
    async with service.serve():
        connection = await place.connect(service)
        small = await place.create(connection, method={"type": "baseline", "size": 64})
        [told] = (await place.run(small))["metrics"]["warnings"]
        assert told["code"] == "enlarged_by_service"
        assert "64 pixels" in told["detail"]
        assert "256" in told["hint"]
        assert [concern["code"] for concern in await place.events(small, "job.warning")] == [told["code"]]
        assert {image.shape for image in service.arrived} == {(64, 64, 3)}
        service.arrived.clear()
        body = {"connection_id": connection, "dataset_id": await place.data(), "name": "j"}
        body["method"] = {"type": "baseline", "size": 64}  # type: ignore[assignment]
        quote = await place.ok("POST", "/v1/jobs/quote", json=body)
        assert told in quote["warnings"]
        job = await place.run(await place.create(connection, method={"type": "baseline"}))
    assert job["metrics"].get("warnings", []) == []
    assert {image.shape for image in service.arrived} == {(256, 256, 3)}


async def test_f15_transparent_pixels_lie_on_the_colour_asked_for(place: Place) -> None:  # noqa: F811
    """In the data set, in the program, and in what is sent to its endpoint: there a training file
    costs nothing, since its pixels were paid."""
    out, rng = io.BytesIO(), np.random.default_rng(6)
    files = [transparent(blocks(rng))[0] for _ in range(20)]
    with zipfile.ZipFile(out, "w") as archive:
        for n, file in enumerate(files):
            archive.writestr(f"{'one' if n % 2 else 'two'}/{n}.png", file)
    path = "/v1/datasets?name=alpha&seed=1&background="
    refused = await place.rest.post(f"{path}reddish", content=out.getvalue())
    assert (refused.status_code, refused.json()["param"]) == (422, "background")
    data = await place.ok("POST", f"{path}102030", content=out.getvalue())
    assert data["report"]["image_sizes"]["background"] == "#102030"
    service = Picky("custom_vision", [])
    async with service.serve():
        connection = await place.connect(service)
        method = {"type": "baseline", "size": SIDE}
        publish = {"name": "alpha"}
        ident = await place.create(connection, dataset_id=data["id"], method=method, publish=publish)
        assert (await place.run(ident))["status"] == "succeeded"
        for image in service.arrived:
            assert (image[:, : SIDE // 2] == (0x10, 0x20, 0x30)).all()
        answer = await place.rest.post("/v1/endpoints/alpha/predict", content=files[0])
        assert (answer.status_code, answer.headers["X-Remote-Queries"]) == (200, "0"), answer.text
        await place.house.predictor.close()
    zipped = await place.rest.get(f"/v1/jobs/{ident}/artifact")
    with zipfile.ZipFile(io.BytesIO(zipped.content)) as artifact:
        assert json.loads(artifact.read("config.json"))["program"]["background"] == [0x10, 0x20, 0x30]


@dataclass
class Blunt(Service):
    """Scores follow the image in steps, as those of a service that compresses it again do."""

    step: int = 24
    files: set[bytes] = field(default_factory=set)

    def good(self, body: bytes) -> web.Response:
        self.files.add(body)
        with Image.open(io.BytesIO(body)) as image:
            pixels = np.asarray(image).astype(float)
        level = np.floor(pixels.mean(axis=(0, 1)) / self.step).sum() * self.step / (3 * 255)
        return web.json_response(tags(round(level, 6), round(1 - level, 6)))


@pytest.mark.parametrize("smoothing", [0.01, 1.0])
async def test_f17_probes_that_the_service_does_not_feel_are_told(place: Place, smoothing: float) -> None:  # noqa: F811
    service = Blunt("custom_vision", [])
    method = {
        "type": "spsa", "smoothing": smoothing, "repeats": 1, "batch_size": 4,
        "program": {"size": 16, "resolution": 1, "frame": 0.5},
    }  # fmt: skip
    async with service.serve():
        connection = await place.connect(service)
        limits = {"max_queries": 160, "queries_per_prediction": 1}
        ident = await place.create(connection, method=method, limits=limits)
        job = await place.run(ident)
    assert job["status"] == "succeeded", job["error"]
    assert len(service.files) == place.booked(ident, connection)  # every probe was another image
    codes = [concern["code"] for concern in job["metrics"]["warnings"]]
    assert ("probes_not_felt" in codes) == (smoothing < 0.1), codes
    assert codes == [concern["code"] for concern in await place.events(ident, "job.warning")]
