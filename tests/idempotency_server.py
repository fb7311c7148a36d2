"""A server of its own process, which shares a Redis with others.

Run by test_idempotency_redis.py, which may kill it. Each call of the handler
is counted in Redis.
"""

import asyncio
import json
import socket
import sys
from typing import Any

from aiohttp import web
from redis.asyncio import Redis

from aiohttp_middlewares import RedisStore, idempotency_middleware


def main(options: dict[str, Any]) -> None:
    redis: Redis = Redis(unix_socket_path=options["redis"])
    store = RedisStore(redis)
    store.lock_ttl = options["lock_ttl"]

    async def pay(request: web.Request) -> web.Response:
        number = await redis.incr("calls")
        await asyncio.sleep(float(request.query["seconds"]))
        return web.Response(text=f"payment {number}")

    app = web.Application(middlewares=[idempotency_middleware(store=store)])
    app.router.add_post("/pay", pay)
    web.run_app(app, sock=socket.socket(fileno=options["socket"]), print=None)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
