"""The smaller wire formats: the same classifiers behind eight more services' shapes."""

from app.sandbox.classifiers import Size
from app.sandbox.desk import Desk
from app.sandbox.formats.azure import ContentSafety
from app.sandbox.formats.base import Format
from app.sandbox.formats.google import Vision
from app.sandbox.formats.huggingface import HuggingFace
from app.sandbox.formats.imagga import Imagga
from app.sandbox.formats.open_inference import OpenInference
from app.sandbox.formats.openai import Moderation
from app.sandbox.formats.rekognition import Rekognition
from app.sandbox.formats.sightengine import Sightengine

KINDS: tuple[type[Format], ...] = (
    HuggingFace, OpenInference, Vision, Rekognition, ContentSafety, Moderation, Sightengine,
    Imagga,
)  # fmt: skip


def everything(desk: Desk, size: Size) -> list[Format]:
    return [kind(desk, size) for kind in KINDS]
