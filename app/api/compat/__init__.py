"""Published endpoints in the wire formats of other services, for their clients: one file each."""

from app.api.compat import clarifai, clarifai_models, custom_vision, huggingface, open_inference

ROUTERS = (
    huggingface.router,
    custom_vision.router,
    clarifai.router,
    clarifai_models.router,
    open_inference.router,
)
