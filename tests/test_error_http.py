"""What an ``HTTPException`` bears: its body, headers and cookies."""

from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from typing import Any

import pytest
from aiohttp import web
from error_site import SHIPPED, ask, decorated, page, raising
from multidict import CIMultiDict
from pytest_aiohttp import AiohttpClient

from aiohttp_middlewares import error_context, error_middleware
from aiohttp_middlewares.annotations import Handler

# Bodies that the developer gave an HTTPException
# ===============================================


def with_body(body: Any, **headers: str) -> web.HTTPException:
    """aiohttp deprecates the argument, not the property."""
    exc = web.HTTPBadRequest()
    exc.body = body
    for name, value in headers.items():
        exc.headers[name.replace("_", "-")] = value
    return exc


@pytest.mark.parametrize(
    ("raised", "content_type", "body"),
    [
        (
            web.HTTPBadRequest(
                text='{"field":"name"}', content_type="application/json"
            ),
            "application/json; charset=utf-8",
            b'{"field":"name"}',
        ),
        (
            web.HTTPNotFound(
                text="<h1>No \u20ac</h1>", content_type="text/html"
            ),
            "text/html; charset=utf-8",
            "<h1>No \u20ac</h1>".encode(),
        ),
        (
            web.HTTPConflict(
                text="{}", content_type="application/problem+json"
            ),
            "application/problem+json; charset=utf-8",
            b"{}",
        ),
        (
            with_body(b"\x89PNG\xff\x00", Content_Type="image/png"),
            "image/png",
            b"\x89PNG\xff\x00",
        ),
        # plain text, but in no charset that it claims
        (
            with_body(
                b"\xff\xfe\xff", Content_Type="text/plain; charset=utf-8"
            ),
            "text/plain; charset=utf-8",
            b"\xff\xfe\xff",
        ),
        (
            with_body(b"hi", Content_Type="text/plain; charset=nonsense"),
            "text/plain; charset=nonsense",
            b"hi",
        ),
    ],
    ids=["json", "html", "problem", "binary", "not utf-8", "unknown charset"],
)
async def test_own_body_is_sent_as_it_is(
    aiohttp_client: AiohttpClient,
    raised: web.HTTPException,
    content_type: str,
    body: bytes,
) -> None:
    client = await aiohttp_client(page(raising(raised)))
    answer = await ask(client)
    assert answer.status == raised.status
    assert answer.headers.getall("Content-Type") == [content_type]
    assert await answer.read() == body
    assert int(answer.headers["Content-Length"]) == len(body)


async def test_own_body_may_be_bytes_of_no_type(
    aiohttp_client: AiohttpClient,
) -> None:
    exc = with_body(b"\x00")
    del exc.headers["Content-Type"]
    client = await aiohttp_client(page(raising(exc)))
    answer = await ask(client)
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert await answer.read() == b"\x00"


async def test_own_body_may_come_in_pieces(
    aiohttp_client: AiohttpClient,
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one "
        yield b"two"

    client = await aiohttp_client(
        page(raising(lambda: with_body(pieces())))  # "text/plain"
    )
    answer = await ask(client)
    assert (answer.status, await answer.text()) == (400, "one two")


async def test_own_body_stays_encoded(aiohttp_client: AiohttpClient) -> None:
    import zlib

    packed = zlib.compress(b'{"a": 1}')
    client = await aiohttp_client(
        page(
            raising(
                with_body(
                    packed,
                    Content_Encoding="deflate",
                    Content_Type="application/json",
                )
            )
        )
    )
    answer = await ask(client)
    assert answer.headers["Content-Encoding"] == "deflate"
    assert await answer.json() == {"a": 1}


async def test_what_belongs_to_a_body_goes_with_it(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(status=400)

    raised = with_body(
        b"packed",
        Content_Encoding="deflate",
        Content_Length="6",
        Content_Type="image/png",
        Content_Language="en",
        Transfer_Encoding="chunked",
    )
    client = await aiohttp_client(
        page(raising(raised), error_middleware(default_handler=handler))
    )
    answer = await ask(client)
    assert (answer.status, await answer.read()) == (400, b"")
    assert answer.headers["Content-Language"] == "en"
    assert answer.headers["Content-Length"] == "0"
    for name in ("Content-Encoding", "Transfer-Encoding"):
        assert name not in answer.headers
    assert answer.headers.get("Content-Type") != "image/png"


async def test_own_body_may_be_compressed(
    aiohttp_client: AiohttpClient,
) -> None:
    exc = web.HTTPBadRequest(text="[" + "1," * 999 + "1]")
    exc.content_type = "application/json"
    exc.enable_compression()
    client = await aiohttp_client(page(raising(exc)))
    answer = await ask(client, headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert await answer.json() == [1] * 1000


# Headers and cookies of an HTTPException
# =======================================


@pytest.mark.parametrize("handler", SHIPPED)
async def test_headers_and_cookies_are_kept(
    aiohttp_client: AiohttpClient, handler: Handler
) -> None:
    client = await aiohttp_client(
        page(raising(decorated()), error_middleware(default_handler=handler))
    )
    answer = await ask(client)
    assert answer.status == 401
    headers = answer.headers
    assert headers.getall("WWW-Authenticate") == [
        "Negotiate",
        'Basic realm="x"',
    ]
    assert headers.getall("Retry-After") == ["120"]
    assert headers.getall("ETag") == ['"x"']
    assert headers.getall("X-Own") == ["1"]
    assert sorted(", ".join(headers.getall("Vary")).split(", ")) == [
        "Accept",
        "Cookie",
    ]
    assert len(headers.getall("Content-Type")) == 1
    assert len(headers.getall("Content-Length")) == 1
    assert answer.cookies["seen"].value == "1"
    assert answer.cookies["seen"]["path"] == "/login"
    assert answer.cookies["session"]["max-age"] == "0"


async def test_what_the_error_handler_says_itself_counts(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.Response(
            status=403,
            text="Go away",
            headers={"x-own": "2", "www-authenticate": "Bearer", "Vary": "A"},
        )
        response.set_cookie("seen", "2")
        return response

    client = await aiohttp_client(
        page(raising(decorated()), error_middleware(default_handler=handler))
    )
    answer = await ask(client)
    assert (answer.status, await answer.text()) == (403, "Go away")
    assert answer.headers.getall("X-Own") == ["2"]
    assert answer.headers.getall("WWW-Authenticate") == ["Bearer"]
    assert answer.headers.getall("Retry-After") == ["120"]
    assert answer.headers.getall("Vary") == ["A, Cookie, Accept"]
    assert answer.headers.getall("Content-Type") == [
        "text/plain; charset=utf-8"
    ]
    assert answer.cookies["seen"].value == "2"
    assert answer.cookies["seen"]["path"] == "/"
    assert answer.cookies["session"]["max-age"] == "0"


async def test_content_range_of_a_416_is_kept(
    aiohttp_client: AiohttpClient,
) -> None:
    client = await aiohttp_client(
        page(
            raising(
                web.HTTPRequestRangeNotSatisfiable(
                    headers={"Content-Range": "bytes */100"}
                )
            )
        )
    )
    answer = await ask(client)
    assert answer.status == 416
    assert answer.headers["Content-Range"] == "bytes */100"


async def test_connection_is_closed_where_the_error_says_so(
    aiohttp_client: AiohttpClient,
) -> None:
    exc = web.HTTPServiceUnavailable()
    exc.force_close()
    client = await aiohttp_client(page(raising(exc)))
    assert (await ask(client)).headers["Connection"] == "close"
    client = await aiohttp_client(page(raising(web.HTTPServiceUnavailable())))
    assert "Connection" not in (await ask(client)).headers


async def test_prepared_answer_of_an_error_handler_is_left_alone(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=503)
        await response.prepare(request)
        await response.write(b"in pieces")
        return response

    seen = []

    @web.middleware
    async def seeing(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        response = await handler(request)
        seen.append("X-Own" in response.headers)  # as it was not sent
        return response

    client = await aiohttp_client(
        page(
            raising(decorated()),
            seeing,
            error_middleware(default_handler=handler),
        )
    )
    answer = await ask(client)
    assert (answer.status, await answer.text()) == (503, "in pieces")
    assert "X-Own" not in answer.headers
    assert seen == [False]


async def test_raised_answer_may_be_handed_back(
    aiohttp_client: AiohttpClient,
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        with error_context(request) as context:
            raise context.err

    client = await aiohttp_client(
        page(
            raising(web.HTTPConflict(text="mine", headers={"X-Own": "1"})),
            error_middleware(default_handler=handler),
        )
    )
    answer = await ask(client)
    assert (answer.status, await answer.text()) == (409, "mine")
    assert answer.headers.getall("X-Own") == ["1"]


# Exceptions that are no responses, or are raised again
# =====================================================


class NextConflict(web.HTTPConflict):
    """As aiohttp 4 has it: with none of what makes a response."""

    def __init__(self, text: str | None = None, **headers: str) -> None:
        Exception.__init__(self, "Conflict")
        self.fields = CIMultiDict(headers)
        self.given = text
        self.jar: SimpleCookie = SimpleCookie()

    def __getattribute__(self, name: str) -> Any:
        own = {"status": 409, "status_code": 409, "reason": "Conflict"}
        if name in own:
            return own[name]
        if name in ("text", "headers", "cookies"):
            kept = {"text": "given", "headers": "fields", "cookies": "jar"}
            return vars(self)[kept[name]]
        if name in dir(web.Response) and not name.startswith("__"):
            raise AttributeError(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize("handler", SHIPPED)
@pytest.mark.parametrize(
    ("text", "kind", "detail"),
    [
        (None, None, "Conflict"),
        ("409: Conflict", "text/plain", "Conflict"),
        ("Taken \u20ac", "text/plain", "Taken \u20ac"),
        ("Taken", "text/plain; charset=utf-8", "Taken"),
    ],
)
async def test_exception_of_the_next_aiohttp_is_answered_alike(
    aiohttp_client: AiohttpClient,
    handler: Handler,
    text: str | None,
    kind: str | None,
    detail: str,
) -> None:
    headers = {"X-Own": "1"} | ({"Content-Type": kind} if kind else {})
    raised = NextConflict(text, **headers)
    with pytest.raises(AttributeError):
        raised.body  # noqa: B018
    raised.cookies["seen"] = "1"
    client = await aiohttp_client(
        page(raising(raised), error_middleware(default_handler=handler))
    )
    answer = await ask(client)
    assert answer.status == 409
    assert (await answer.json(content_type=None))["detail"] == detail
    assert answer.headers.getall("X-Own") == ["1"]
    assert answer.cookies["seen"].value == "1"


async def test_own_body_of_the_next_aiohttp_is_sent_as_it_is(
    aiohttp_client: AiohttpClient,
) -> None:
    raised = NextConflict("<h1>\u20ac</h1>", **{"Content-Type": "text/html"})
    client = await aiohttp_client(page(raising(raised)))
    answer = await ask(client)
    assert (answer.status, answer.content_type) == (409, "text/html")
    assert await answer.read() == "<h1>\u20ac</h1>".encode()


@pytest.mark.parametrize("handler", SHIPPED)
async def test_nothing_is_written_into_an_exception_that_others_raise_too(
    aiohttp_client: AiohttpClient, handler: Handler
) -> None:
    shared = decorated()
    before = list(shared.headers.items())
    morsel = dict(shared.cookies["seen"])

    @web.middleware
    async def marking(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        response = await handler(request)
        response.headers["X-Visitor"] = "me"
        response.cookies["seen"]["max-age"] = "5"
        response.set_cookie("visitor", "me")
        return response

    client = await aiohttp_client(
        page(
            raising(shared),
            marking,
            error_middleware(default_handler=handler),
        )
    )
    for _ in range(2):
        answer = await ask(client)
        assert answer.status == 401
        assert answer.cookies["visitor"].value == "me"
        assert list(shared.headers.items()) == before
        assert dict(shared.cookies["seen"]) == morsel
        assert list(shared.cookies) == ["seen", "session"]
        assert not shared.prepared
