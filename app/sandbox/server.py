"""The sandbox as one web application, and the process that serves it."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Generator
from dataclasses import dataclass

import orjson
import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.sandbox.clarifai import Clarifai
from app.sandbox.classifiers import Size, require_packages
from app.sandbox.custom_vision import CustomVision
from app.sandbox.desk import Desk
from app.sandbox.faults import Faults
from app.sandbox.formats import everything
from app.sandbox.replies import TRANSPORT, json_reply
from app.sandbox.scoring import default_workers

DEFAULT_PORT = 8900


@dataclass(frozen=True)
class SandboxConfig:
    """How a sandbox starts.

    `size`: which form plain model ids mean. `keys`: the accepted keys; none given means any that starts with
    `sandbox-`. `rate_limit_rps`: None for each provider's own limit, 0 for none. `workers`: scoring threads,
    0 for one per processor.
    """

    size: Size = 224
    keys: tuple[str, ...] = ()
    rate_limit_rps: float | None = None
    workers: int = 0


def create_sandbox(config: SandboxConfig | None = None) -> Starlette:
    """The sandbox as an ASGI application. Raises SandboxUnavailableError without the `sandbox` extra."""
    require_packages()
    config = config or SandboxConfig()
    desk = Desk(config.keys, config.rate_limit_rps, config.workers or default_workers())
    return Starlette(
        routes=[
            *(route for format in everything(desk, config.size) for route in format.routes()),
            *Clarifai(desk, config.size).routes(),  # owns the rest of /v2
            *CustomVision(desk, config.size).routes(),
            *_office(desk),
        ]
    )


def _office(desk: Desk) -> list[Route]:
    """The sandbox's own routes: bill, faults, health. They cost nothing and ask for no key."""

    async def bill(_: Request) -> Response:
        return json_reply(desk.bill.summary())

    async def reset_bill(_: Request) -> Response:
        desk.reset_bill()
        return json_reply(desk.bill.summary())

    async def show_faults(_: Request) -> Response:
        return json_reply(desk.box.faults.model_dump())

    async def set_faults(request: Request) -> Response:
        return _set_faults(desk, await request.body())

    async def clear_faults(request: Request) -> Response:
        desk.box.set(Faults())
        return await show_faults(request)

    async def health(_: Request) -> Response:
        return json_reply({"status": "ok"})

    return [
        Route("/bill", bill),
        Route("/bill/reset", reset_bill, methods=["POST"]),
        Route("/faults", show_faults, methods=["GET"]),
        Route("/faults", set_faults, methods=["POST"]),
        Route("/faults", clear_faults, methods=["DELETE"]),
        Route("/healthz", health),
    ]


def _set_faults(desk: Desk, body: bytes) -> Response:
    """Change the switches that are named and leave the others; 422 names the first that is wrong."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError:
        return json_reply({"error": "the body is not JSON"}, 400)
    if not isinstance(given, dict):
        return json_reply({"error": "the body is not a JSON object"}, 400)
    try:
        desk.box.set(Faults.model_validate({**desk.box.faults.model_dump(), **given}))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = str(first["loc"][0])
        return json_reply({"error": f"{field}: {first['msg']}", "field": field}, 422)
    return json_reply(desk.box.faults.model_dump())


class ResettableProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol that lets a reply reach its own socket, to reset or cut the connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        app: ASGIApp = self.app

        async def with_transport(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("extensions", {})[TRANSPORT] = transport
            await app(scope, receive, send)

        self.app = with_transport


def _server(config: SandboxConfig, host: str, port: int) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(
            create_sandbox(config),
            host=host,
            port=port,
            http=ResettableProtocol,
            loop="asyncio",  # whose transport resets and cuts as the protocol above asks
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=2,
        )
    )


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio stops delayed sending (40 ms a reply) only where it sees TCP.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((host, port))
    return bound


def serve(
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    size: Size = 224,
    keys: tuple[str, ...] = (),
    rate_limit_rps: float | None = None,
    workers: int = 0,
) -> None:
    """Serve until interrupted. The first line printed is the address; port 0 takes a free port.

    Raises SandboxUnavailableError without the `sandbox` extra, OSError where the port is taken.
    """
    server = _server(SandboxConfig(size, keys, rate_limit_rps, workers), host, port)
    with _listen(host, port) as bound:
        print(f"Sandbox on http://{host}:{bound.getsockname()[1]}", flush=True)
        server.run(sockets=[bound])


@contextlib.contextmanager
def running(config: SandboxConfig | None = None, host: str = "127.0.0.1", port: int = 0) -> Generator[str]:
    """Serve from a thread of this process while the block runs; gives the base URL."""
    server = _server(config or SandboxConfig(), host, port)
    with _listen(host, port) as bound:
        bound.listen(128)  # early connections wait for the thread instead of being refused
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="sandbox", daemon=True)
        thread.start()
        try:
            yield f"http://{host}:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)
