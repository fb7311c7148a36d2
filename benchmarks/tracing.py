"""Tracing beside the official instrumentation: same requests, same run.

``python -m benchmarks.tracing`` has each implementation handle the same
requests, parsed and routed by aiohttp itself, over a connection that goes
nowhere, and prints what a request costs over an empty middleware. They take
turns in rounds; what counts is the median. Spans go to a processor that drops
them, metrics to a reader that nobody reads.
"""

import asyncio
import gc
import statistics
import time
from typing import Any

from aiohttp import web
from opentelemetry import metrics
from opentelemetry.instrumentation import aiohttp_server
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

from aiohttp_middlewares import tracing_middleware

REQUESTS = 500  # in a round
ROUNDS = 7
SENT = (
    b"GET /users/ann?page=2 HTTP/1.1\r\nHost: shop.example\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101\r\n"
    b"Accept: */*\r\nConnection: keep-alive\r\ntraceparent: "
    b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n"
)


class Transport(asyncio.Transport):
    """A connection to nobody."""

    def write(self, data: Any) -> None: ...

    def writelines(self, list_of_data: Any) -> None: ...

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 50000) if name == "peername" else default

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...


async def answer(request: web.Request) -> web.Response:
    return web.Response(text="ann")


@web.middleware
async def empty(request: web.Request, handler: Any) -> Any:
    return await handler(request)


def application(*middlewares: Any) -> web.Application:
    app = web.Application(middlewares=middlewares)
    app.router.add_get("/users/{name}", answer)
    return app


async def seconds(server: Any, sent: bytes) -> float:
    """What a round takes, on a connection of its own."""
    protocol = server()
    protocol.connection_made(Transport())
    gc.collect()
    gc.disable()
    start = time.thread_time()
    for _ in range(REQUESTS):
        protocol.data_received(sent)
        # Until it waits for the next one.
        while protocol._current_request is not None or protocol._messages:  # noqa: ASYNC110
            await asyncio.sleep(0)
    taken = time.thread_time() - start
    gc.enable()
    protocol.force_close()
    return taken


def cases(meters: MeterProvider | None) -> dict[str, Any]:
    official = aiohttp_server.AioHttpServerInstrumentor()
    # It makes its instruments, of the global provider.
    official.instrument()
    official.uninstrument()
    found: dict[str, Any] = {"an empty middleware": empty}
    found["ours, no SDK"] = tracing_middleware(
        meter_provider=metrics.NoOpMeterProvider()
    )
    for name, sampler in (("sampled", ALWAYS_ON), ("unsampled", ALWAYS_OFF)):
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SpanProcessor())
        found[f"ours, {name}"] = tracing_middleware(
            tracer_provider=provider,
            meter_provider=meters or metrics.NoOpMeterProvider(),
        )
        found[f"official, {name}"] = aiohttp_server.create_aiohttp_middleware(
            tracer_provider=provider
        )
    return found


async def compare(meters: MeterProvider | None) -> None:
    runners = {}
    for name, middleware in cases(meters).items():
        runner = web.AppRunner(application(middleware), access_log=None)
        await runner.setup()
        runners[name] = runner
    took: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(ROUNDS):
        for name, runner in runners.items():
            took[name].append(await seconds(runner.server, SENT))
    for name, rounds in took.items():
        over = statistics.median(
            one - other
            for one, other in zip(
                rounds, took["an empty middleware"], strict=True
            )
        )
        print(f"  {name:30}{over / REQUESTS * 1e6:8.1f}")
    for runner in runners.values():
        await runner.cleanup()


async def main() -> None:
    print("Microseconds of the processor a request, over an empty middleware")
    print("spans only:")
    await compare(None)
    meters = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
    metrics.set_meter_provider(meters)
    print("spans and metrics, of which ours has five and the other three:")
    await compare(meters)


if __name__ == "__main__":
    asyncio.run(main())
