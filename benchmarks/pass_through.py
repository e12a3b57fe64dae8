"""The least a proxy can do: the same bytes to the source model and back.   pass_through.py PORT BASE_URL"""

import sys
from collections.abc import AsyncGenerator

from aiohttp import ClientSession, TCPConnector, web


async def passes(request: web.Request) -> web.Response:
    data, headers = await request.read(), {"Authorization": request.headers["Authorization"]}
    async with request.app["session"].post(sys.argv[2] + request.path, data=data, headers=headers) as reply:
        return web.Response(body=await reply.read(), status=reply.status, content_type=reply.content_type)


async def session(app: web.Application) -> AsyncGenerator[None]:
    async with ClientSession(connector=TCPConnector(limit=100)) as app["session"]:
        yield


app = web.Application(client_max_size=2**26)
app.cleanup_ctx.append(session)
app.router.add_post("/{path:.*}", passes)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
