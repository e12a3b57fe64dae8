"""Published endpoints in the wire formats of other services, for their clients: one file each."""

from app.api.compat import clarifai, custom_vision, huggingface, open_inference

ROUTERS = (huggingface.router, custom_vision.router, clarifai.router, open_inference.router)
