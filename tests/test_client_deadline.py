"""deadline_middleware: no call outlives the request that needs it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from client_site import Site, accept, hang, serve, session_with
from live import eventually, live, soon

from aiohttp_middlewares import (
    error_middleware,
    shield_middleware,
    timeout_middleware,
)
from aiohttp_middlewares._core.deadline import DEADLINE, time_left
from aiohttp_middlewares.client import (
    DeadlineExceeded,
    circuit_breaker_middleware,
    deadline_middleware,
    retry_middleware,
    throttle_middleware,
    upstream_errors,
)
from aiohttp_middlewares.client.deadline import DEFAULT_HEADER

#: A limit that is to be reached, and one that is not.
SHORT = 0.2
#: What is lost when two times of a loop are subtracted.
ULP = 1e-9
LONG = 60.0

Work = Callable[[web.Request], Awaitable[Any]]


@contextlib.asynccontextmanager
async def serving(
    work: Work, *middlewares: Any, path: str = "/"
) -> AsyncIterator[Any]:
    """An application whose handler does some work."""

    async def handle(request: web.Request) -> web.StreamResponse:
        found = await work(request)
        if isinstance(found, web.StreamResponse):
            return found
        return web.Response(text=str(found))

    app = web.Application(middlewares=middlewares)
    app.router.add_get(path, handle)
    app.router.add_post(path, handle)
    async with TestClient(TestServer(app)) as client:
        yield client


async def outcome(session: aiohttp.ClientSession, url: str) -> str:
    try:
        async with session.get(url) as response:
            return str(response.status)
    except (aiohttp.ClientError, asyncio.TimeoutError) as exc:
        return type(exc).__name__


async def told(request: web.Request) -> web.Response:
    return web.Response(text=request.headers.get(DEFAULT_HEADER, "nothing"))


# What it does
# ============


async def test_three_calls_of_which_the_last_is_cut_make_our_504() -> None:
    had: list[int] = []

    async def upstream(request: web.Request) -> web.Response:
        had.append(int(request.headers[DEFAULT_HEADER]))
        await asyncio.sleep(0.15 if len(had) < 3 else 30)
        return web.Response()

    async with serve() as site:
        site.answers = [upstream]
        calls = [
            retry_middleware(base_delay=0.01),
            deadline_middleware(origins=[site.url]),
        ]
        async with aiohttp.ClientSession(middlewares=calls) as session:

            async def work(request: web.Request) -> str:
                for _ in range(3):
                    async with session.get(site.url):
                        pass
                return "done"

            async with serving(
                work,
                error_middleware(config=upstream_errors),
                timeout_middleware(1),
            ) as client:
                response = await soon(client.get("/"))
                assert response.status == 504
                assert await response.json() == {"detail": "Request timed out"}
    first, second, third = had
    assert 0 < third < second < first <= 950
    assert second <= first - 150
    assert third <= second - 150


async def test_what_is_cut_and_what_is_not_sent_are_the_same_error() -> None:
    found: list[BaseException] = []
    async with serve() as site:
        site.answers = [hang]
        async with session_with(deadline_middleware(margin=0.1)) as session:

            async def work(request: web.Request) -> str:
                for _ in range(2):
                    with pytest.raises(DeadlineExceeded) as info:
                        await session.get(site.url)
                    found.append(info.value)
                return "in time"

            async with serving(work, timeout_middleware(SHORT)) as client:
                response = await soon(client.get("/"))
                assert await response.text() == "in time"
        assert site.count == 1
        for error in found:
            assert isinstance(error, aiohttp.ClientError)
            assert isinstance(error, asyncio.TimeoutError)
            assert not isinstance(error, aiohttp.ClientConnectionError)
            assert str(error) == (
                f"No time was left for {site.url.rstrip('/')}"
            )


async def test_connection_of_a_call_that_was_cut_is_free_again() -> None:
    connector = aiohttp.TCPConnector(limit=1)
    async with serve() as site:
        site.answers = [hang, 200]
        async with session_with(
            deadline_middleware(), connector=connector
        ) as session:

            async def work(request: web.Request) -> str:
                return await outcome(session, site.url)

            async with serving(work, timeout_middleware(SHORT)) as client:
                response = await soon(client.get("/"))
                assert await response.text() == "DeadlineExceeded"
            assert await soon(outcome(session, site.url)) == "200"


@pytest.mark.parametrize("seconds", [(LONG, SHORT), (SHORT, LONG)])
async def test_of_nested_limits_the_smallest_counts(
    seconds: tuple[float, float],
) -> None:
    async def work(request: web.Request) -> float | None:
        return time_left()

    limits = map(timeout_middleware, seconds)
    async with serving(work, *limits) as client:
        for _ in range(2):  # the second on the same connection
            response = await client.get("/")
            assert 0 < float(await response.text()) <= SHORT + ULP


async def test_limit_that_is_over_leaves_the_one_around_it() -> None:
    left: list[float | None] = []

    @web.middleware
    async def between(request: web.Request, handler: Any) -> Any:
        response = await handler(request)
        left.append(time_left())
        return response

    async def work(request: web.Request) -> str:
        left.append(time_left())
        return ""

    async with serving(
        work, timeout_middleware(LONG), between, timeout_middleware(SHORT)
    ) as client:
        for _ in range(3):
            await client.get("/")
            inner, outer = left
            assert inner is not None
            assert outer is not None
            assert inner <= SHORT + ULP < outer <= LONG
            left.clear()


async def test_limits_that_are_over_are_not_remembered() -> None:
    @web.middleware
    async def often(request: web.Request, handler: Any) -> Any:
        for _ in range(4):
            response = await handler(request)
        return response

    depths: list[int] = []

    async def work(request: web.Request) -> str:
        around, depth = DEADLINE.get(), 0
        while around is not None:
            around, depth = around[2], depth + 1
        depths.append(depth)
        return ""

    limit, *limits = (timeout_middleware(LONG) for _ in range(3))
    async with serving(work, limit, often, *limits) as client:
        await client.get("/")
    assert depths == [3] * 4


async def test_tasks_of_the_handler_have_its_limit() -> None:
    async with serve() as site:
        site.answers = [hang]
        async with session_with(deadline_middleware()) as session:

            async def work(request: web.Request) -> list[str]:
                return await asyncio.gather(
                    *(outcome(session, site.url) for _ in range(3))
                )

            async with serving(work, timeout_middleware(SHORT)) as client:
                response = await soon(client.get("/"))
                assert await response.text() == str(["DeadlineExceeded"] * 3)


async def test_handler_that_goes_on_after_its_limit_has_nothing_left() -> None:
    async with serve() as site, session_with(deadline_middleware()) as session:

        async def work(request: web.Request) -> str:
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                return await outcome(session, site.url)
            return "nobody cancelled it"

        async with serving(work, timeout_middleware(0.02)) as client:
            response = await soon(client.get("/"))
            assert await response.text() == "DeadlineExceeded"
        assert site.count == 0


# What it leaves alone
# ====================


async def test_outside_of_a_request_there_is_no_limit() -> None:
    async with serve() as site:
        site.answers = [told]
        deadline = deadline_middleware(origins=[site.url])
        async with (
            session_with(deadline) as session,
            session.get(site.url) as response,
        ):
            assert await response.text() == "nothing"
    assert time_left() is None


@pytest.mark.parametrize(
    "middleware",
    [timeout_middleware(None), timeout_middleware(9, ignore=["/"])],
)
async def test_request_without_a_limit_has_none(middleware: Any) -> None:
    async def work(request: web.Request) -> float | None:
        return time_left()

    async with serving(work, middleware) as client:
        response = await client.get("/")
        assert await response.text() == "None"


async def test_once_the_response_has_started_there_is_no_limit() -> None:
    async def upstream(request: web.Request) -> web.Response:
        await asyncio.sleep(2 * SHORT)
        return web.Response()

    async with serve() as site:
        site.answers = [upstream]
        async with session_with(deadline_middleware()) as session:

            async def work(request: web.Request) -> web.StreamResponse:
                # This one begins before the response does.
                call = asyncio.create_task(outcome(session, site.url))
                await site.until(1)
                response = web.StreamResponse()
                await response.prepare(request)
                await response.write(b"begun ")
                assert time_left() is None
                await response.write((await call).encode())
                text = await outcome(session, site.url)
                await response.write(f" {text}".encode())
                return response

            async with serving(work, timeout_middleware(SHORT)) as client:
                response = await soon(client.get("/"))
                assert await soon(response.text()) == "begun 200 200"


async def test_task_that_outlives_its_request_has_no_limit() -> None:
    tasks: list[asyncio.Task[str]] = []
    answered = asyncio.Event()

    async def upstream(request: web.Request) -> web.Response:
        await answered.wait()
        await asyncio.sleep(2 * SHORT)
        return web.Response()

    async with serve() as site:
        site.answers = [upstream]
        async with session_with(deadline_middleware()) as session:

            async def late() -> str:
                await answered.wait()
                return await outcome(session, site.url)

            async def work(request: web.Request) -> str:
                tasks.append(asyncio.create_task(outcome(session, site.url)))
                tasks.append(asyncio.create_task(late()))
                await site.until(1)
                return "answered"

            async with serving(work, timeout_middleware(SHORT)) as client:
                response = await soon(client.get("/"))
                assert await response.text() == "answered"
                answered.set()
                assert await soon(asyncio.gather(*tasks)) == ["200", "200"]


async def test_shielded_handler_has_no_limit() -> None:
    left: list[float | None] = []
    done: list[str] = []

    @web.middleware
    async def between(request: web.Request, handler: Any) -> Any:
        left.append(time_left())
        try:
            return await handler(request)
        finally:
            left.append(time_left())

    async def upstream(request: web.Request) -> web.Response:
        await asyncio.sleep(2 * SHORT)
        return web.Response()

    async with serve() as site:
        site.answers = [200, upstream]
        async with session_with(deadline_middleware()) as session:

            async def work(request: web.Request) -> str:
                assert time_left() is None
                done.append(await outcome(session, site.url))
                return "done"

            async with serving(
                work,
                error_middleware(),
                timeout_middleware(SHORT),
                between,
                shield_middleware(methods=["POST"]),
            ) as client:
                response = await client.post("/")
                assert await response.text() == "done"
                before, after = left
                assert before is not None
                assert after is not None
                response = await soon(client.post("/"))
                assert response.status == 504
                await eventually(lambda: len(done) == 2)
                assert done == ["200", "200"]


async def test_limit_inside_of_a_shield_counts() -> None:
    async def work(request: web.Request) -> float | None:
        return time_left()

    async with serving(
        work, shield_middleware(methods=["POST"]), timeout_middleware(SHORT)
    ) as client:
        response = await client.post("/")
        assert 0 < float(await response.text()) <= SHORT + ULP


async def test_handler_that_is_cancelled_by_others_is_cancelled() -> None:
    ended: list[str] = []
    async with serve() as site:
        site.answers = [hang]
        async with session_with(deadline_middleware()) as session:

            async def work(request: web.Request) -> web.Response:
                try:
                    await session.get(site.url)
                except BaseException as exc:
                    ended.append(type(exc).__name__)
                    raise
                return web.Response()

            app = web.Application(middlewares=[timeout_middleware(LONG)])
            app.router.add_get("/", work)
            async with live(app) as server:
                visitor = await server.connect()
                visitor.send("GET /")
                await soon(site.until(1))
                visitor.leave()
                await eventually(lambda: ended)
    assert ended == ["CancelledError"]


async def test_other_timeouts_stay_what_they_are() -> None:
    async with serve() as site:
        site.answers = [hang]
        limit = aiohttp.ClientTimeout(sock_read=0.02)
        async with session_with(
            deadline_middleware(), timeout=limit
        ) as session:

            async def work(request: web.Request) -> str:
                return await outcome(session, site.url)

            async with serving(work, timeout_middleware(LONG)) as client:
                response = await soon(client.get("/"))
                assert await response.text() == "SocketTimeoutError"


async def test_websocket_lives_on_after_its_handshake() -> None:
    async with serve() as site:
        site.answers = [accept]
        async with session_with(deadline_middleware()) as session:

            async def work(request: web.Request) -> Any:
                async with session.ws_connect(site.url) as ws:
                    return (await ws.receive()).type.name

            async with serving(work, timeout_middleware(LONG)) as client:
                response = await soon(client.get("/"))
                assert await response.text() == "CLOSE"


# What services are told
# ======================


async def test_only_origins_that_are_listed_are_told() -> None:
    async with serve() as site, serve() as stranger:
        stranger.answers = [told]
        location = {"Location": stranger.url}
        site.answers = [told, (302, location, b"")]
        deadline = deadline_middleware(origins=[site.url], margin=0.5)
        async with session_with(deadline) as session:

            async def work(request: web.Request) -> str:
                texts = []
                for headers in ({DEFAULT_HEADER: "99999"}, {}):
                    async with session.get(
                        site.url, headers=headers
                    ) as response:
                        texts.append(await response.text())
                return " ".join(texts)

            async with serving(work, timeout_middleware(10)) as client:
                response = await soon(client.get("/"))
                own, strangers = (await response.text()).split()
    assert 0 < int(own) <= 9500
    assert strangers == "nothing"


async def test_service_is_never_told_zero_which_would_be_no_limit() -> None:
    async with serve() as site:
        site.answers = [told]
        deadline = deadline_middleware(origins=[site.url], header="X-Left")
        seen: list[str] = []

        async def note(
            req: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            seen.extend(req.headers.getall("X-Left"))
            return await handler(req)

        async with aiohttp.ClientSession(
            middlewares=[deadline, note]
        ) as session:

            async def work(request: web.Request) -> str:
                left = time_left()
                assert left is not None
                # The next to nothing that there is.
                await asyncio.sleep(left - 0.0505)
                return await outcome(session, site.url)

            async with serving(work, timeout_middleware(0.1)) as client:
                response = await soon(client.get("/"))
                assert await response.text() in ("200", "DeadlineExceeded")
    assert "0" not in seen


# With its neighbours
# ===================


async def asked_within_a_request(
    site: Site, *middlewares: Any, limit: float = SHORT, times: int = 1
) -> list[str]:
    """How calls of one request end."""
    async with aiohttp.ClientSession(middlewares=middlewares) as session:

        async def work(request: web.Request) -> str:
            return " ".join(
                [await outcome(session, site.url) for _ in range(times)]
            )

        async with serving(work, timeout_middleware(limit)) as client:
            response = await soon(client.get("/"))
            text: str = await response.text()
            return text.split()


async def test_retry_does_not_repeat_what_was_cut() -> None:
    async with serve() as site:
        site.answers = [hang]
        retry = retry_middleware(base_delay=0.001)
        found = await asked_within_a_request(site, retry, deadline_middleware())
        assert found == ["DeadlineExceeded"]
        assert site.count == 1


async def test_throttle_does_not_wait_longer_than_the_request_can() -> None:
    async with serve() as site:
        throttle = throttle_middleware(0.01)
        found = await asked_within_a_request(site, throttle, limit=5, times=2)
        assert found == ["200", "ThrottledError"]


async def test_wait_for_room_ends_with_the_deadline() -> None:
    async with serve() as site:
        site.answers = [hang]
        throttle = throttle_middleware(concurrency=1)
        async with session_with(throttle) as session:
            holder = asyncio.create_task(outcome(session, site.url))
            await site.until(1)
            found = await asked_within_a_request(
                site, deadline_middleware(), throttle
            )
            assert found == ["DeadlineExceeded"]
            holder.cancel()
            await asyncio.wait([holder])
        assert site.count == 1


async def test_breaker_is_not_asked_about_what_is_not_sent() -> None:
    async with serve() as site:
        breaker = circuit_breaker_middleware(failures=1)
        found = await asked_within_a_request(
            site, deadline_middleware(margin=9), breaker, limit=5
        )
        assert found == ["DeadlineExceeded"]
        async with session_with(breaker) as session:
            assert await outcome(session, site.url) == "200"


# Options
# =======


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"margin": -1}, ValueError, "margin should be"),
        ({"margin": "1"}, TypeError, "margin should be"),
        ({"margin": False}, TypeError, "margin should be"),
        ({"margin": float("nan")}, ValueError, "margin should be"),
        ({"origins": "https://a.example"}, TypeError, "origins should be"),
        ({"origins": ""}, TypeError, "origins should be"),
        ({"origins": None}, TypeError, "origins should be"),
        ({"origins": ["a.example"]}, ValueError, "origins should be"),
        ({"header": "X Left"}, ValueError, "header should be"),
        ({"header": None}, TypeError, "header should be"),
    ],
)
def test_wrong_option_is_refused(
    options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        deadline_middleware(**options)


def test_no_margin_and_no_origins_are_fine() -> None:
    assert len({deadline_middleware(margin=0, origins=[])}) == 1


async def test_error_middleware_answers_as_if_the_limit_had_struck(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def asks(request: web.Request) -> web.Response:
        raise DeadlineExceeded("http://secret.internal")

    app = web.Application(middlewares=[error_middleware()])
    app.router.add_get("/", asks)
    async with TestClient(TestServer(app)) as client:
        response = await client.get("/")
        assert response.status == 504
        assert await response.json() == {"detail": "Request timed out"}
    ours = [r for r in caplog.records if r.name == "aiohttp_middlewares.error"]
    assert [record.levelname for record in ours] == ["WARNING"]
