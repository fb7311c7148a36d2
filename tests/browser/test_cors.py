"""What a browser lets pages read, behind ``cors_middleware``."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web

from aiohttp_middlewares import (
    cors_middleware,
    error_middleware,
    timeout_middleware,
)
from aiohttp_middlewares.annotations import Handler, Middleware
from browser.conftest import UNREADABLE, Answer, Open, Page, Serve, json_body


def api(
    *middlewares: Middleware, handler: Handler | None = None
) -> tuple[web.Application, list[str]]:
    """An application, and the requests that have reached it."""
    seen: list[str] = []

    @web.middleware
    async def note(
        request: web.Request, handler: Handler
    ) -> web.StreamResponse:
        seen.append(f"{request.method} {request.path}")
        return await handler(request)

    app = web.Application(middlewares=[note, *middlewares])
    app.router.add_route("*", "/", handler or echo)
    return app, seen


async def echo(request: web.Request) -> web.StreamResponse:
    headers = {"X-Total": "3", "X-Secret": "7"}
    return web.Response(
        text=f"{request.method} {await request.text()}".strip(),
        headers=headers,
    )


# Whose pages may read
# ====================


async def test_page_of_a_listed_origin_reads_the_answer(
    open_page: Open, page: Page, serve: Serve
) -> None:
    origin = await open_page()
    app, _ = api(cors_middleware(origins=[origin]))
    answer = await page.fetch(await serve(app))
    assert (answer.status, answer.text) == (200, "GET")


ALLOWED_BY: dict[str, Callable[[str], Any]] = {
    "exact": lambda origin: [origin],
    "pattern": lambda origin: [re.compile(r"^http://app\.example")],
    "any port": lambda origin: ["http://app.example:*"],
    "function": lambda origin: lambda asked, request: asked == origin,
}


@pytest.mark.parametrize("policy", ALLOWED_BY)
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "app.example.evil.example",
        "evil-app.example",
        "www.app.example",
    ],
)
async def test_page_of_another_origin_reads_nothing(
    policy: str, host: str, open_page: Open, page: Page, serve: Serve
) -> None:
    origins = ALLOWED_BY[policy](await open_page())
    app, seen = api(cors_middleware(origins=origins, allow_credentials=True))
    url = await serve(app)
    assert (await page.fetch(url)).text == "GET"

    await open_page(host)
    assert await page.fetch(url) == UNREADABLE
    assert await page.fetch(url, credentials="include") == UNREADABLE
    assert await page.fetch(url, method="PUT") == UNREADABLE
    # The browser sends what needs no permission; only the page is blind.
    assert seen == ["GET /", "GET /", "GET /", "OPTIONS /"]


async def test_page_at_another_port_reads_nothing(
    open_page: Open, page: Page, serve: Serve
) -> None:
    origin = await open_page()
    app, _ = api(cors_middleware(origins=[origin]))
    url = await serve(app)
    assert await open_page() != origin  # the same host, another port
    assert await page.fetch(url) == UNREADABLE


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ("www.app.example", "GET"),
        ("a.b.app.example", "GET"),
        ("app.example", ""),
        ("www.app.example.evil.example", ""),
    ],
)
async def test_wildcard_stands_for_the_names_below(
    host: str, text: str, open_page: Open, page: Page, serve: Serve
) -> None:
    await open_page(host)
    app, _ = api(cors_middleware(origins=["http://*.app.example:*"]))
    assert (await page.fetch(await serve(app))).text == text


async def framed(page: Page, url: Any, **options: Any) -> Answer:
    """What a sandboxed frame, of the origin ``null``, can read."""
    found = await page.run(
        """
        const heard = new Promise(resolve => {
          window.addEventListener("message", event => resolve(event.data));
        });
        const frame = document.createElement("iframe");
        frame.sandbox = "allow-scripts";
        frame.srcdoc = `<script>
          const read = ${read};
          read(${JSON.stringify(url)}, ${JSON.stringify(options)}).then(
            answer => parent.postMessage([origin, answer], "*"));
        </script>`;
        document.body.append(frame);
        return await heard;
        """,
        url=url,
        options=options,
    )
    assert found[0] == "null"
    return Answer(**found[1])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"origins": [re.compile(".*")]}, ""),
        ({"origins": ["http://app.example:*"]}, ""),
        ({"allow_all": True, "allow_credentials": True}, ""),
        ({"allow_all": True}, "PUT"),
        ({"origins": ["null"], "allow_credentials": True}, "PUT"),
    ],
)
async def test_sandboxed_frame_reads_only_what_null_may(
    options: Any, text: str, open_page: Open, page: Page, serve: Serve
) -> None:
    await open_page()
    app, _ = api(cors_middleware(**options))
    assert (await framed(page, await serve(app), method="PUT")).text == text


async def test_redirect_to_another_server_is_followed_as_null(
    open_page: Open, page: Page, serve: Serve
) -> None:
    origin = await open_page()
    strict, _ = api(cors_middleware(origins=[origin]))
    wide, _ = api(cors_middleware(origins=[origin, "null"]))
    urls = [await serve(strict, "b.example"), await serve(wide, "c.example")]

    async def elsewhere(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound(urls[int(request.query["to"])])

    app, _ = api(cors_middleware(origins=[origin]), handler=elsewhere)
    url = await serve(app)
    assert await page.fetch(url.with_query(to=0)) == UNREADABLE
    assert (await page.fetch(url.with_query(to=1))).text == "GET"


# What takes a preflight
# ======================


async def test_preflighted_request_is_sent_and_read(
    open_page: Open, page: Page, serve: Serve
) -> None:
    origin = await open_page()
    app, seen = api(cors_middleware(origins=[origin]))
    url = await serve(app)
    for method in ("PUT", "PATCH", "DELETE"):
        answer = await page.fetch(url, method=method, **json_body(7))
        assert (answer.status, answer.text) == (200, f"{method} 7")
    # The preflight names all that is allowed: the browser asks once.
    assert seen == ["OPTIONS /", "PUT /", "PATCH /", "DELETE /"]


@pytest.mark.parametrize(
    ("options", "request_options"),
    [
        ({}, {"headers": {"X-Unknown": "1"}}),
        ({"allow_headers": []}, {"headers": {"X-Requested-With": "1"}}),
        ({"allow_methods": ["GET"]}, {"method": "DELETE"}),
        ({"allow_headers": ["*"]}, {"headers": {"Authorization": "x"}}),
        (
            {"urls": {"/": "GET"}, "allow_methods": ["PUT"]},
            {"method": "PUT"},
        ),
    ],
    ids=str,
)
async def test_request_that_is_not_allowed_is_never_sent(
    options: Any,
    request_options: Any,
    open_page: Open,
    page: Page,
    serve: Serve,
) -> None:
    app, seen = api(cors_middleware(origins=[await open_page()], **options))
    assert await page.fetch(await serve(app), **request_options) == UNREADABLE
    assert seen == ["OPTIONS /"]


@pytest.mark.parametrize("credentials", ["include", "omit"])
async def test_star_allows_what_the_standard_says(
    credentials: str, open_page: Open, page: Page, serve: Serve
) -> None:
    cors = cors_middleware(
        origins=[await open_page()],
        allow_credentials=credentials == "include",
        allow_headers=["*", "Authorization"],
        allow_methods=["*"],
    )
    app, _ = api(cors)
    answer = await page.fetch(
        await serve(app),
        method="PURGE",
        credentials=credentials,
        headers={"Authorization": "Bearer 1", "X-Whatever": "2"},
    )
    assert (answer.status, answer.text) == (200, "PURGE")


@pytest.mark.parametrize(
    ("max_age", "expected"),
    [
        (600, ["OPTIONS /", "PUT /", "PUT /"]),
        (0, ["OPTIONS /", "PUT /", "OPTIONS /", "PUT /"]),
        (None, ["OPTIONS /", "PUT /", "PUT /"]),  # for five seconds
    ],
)
async def test_preflight_is_remembered_for_max_age(
    max_age: int | None,
    expected: list[str],
    open_page: Open,
    page: Page,
    serve: Serve,
) -> None:
    app, seen = api(
        cors_middleware(origins=[await open_page()], max_age=max_age)
    )
    url = await serve(app)
    for _ in range(2):
        assert (await page.fetch(url, method="PUT")).text == "PUT"
    assert seen == expected


async def test_remembered_preflight_of_one_page_is_none_for_another(
    open_page: Open, page: Page, serve: Serve
) -> None:
    cors = cors_middleware(origins=[await open_page()], max_age=600)
    app, seen = api(cors)
    url = await serve(app)
    assert (await page.fetch(url, method="PUT")).text == "PUT"
    await open_page("www.app.example")
    assert await page.fetch(url, method="PUT") == UNREADABLE
    assert seen == ["OPTIONS /", "PUT /", "OPTIONS /"]


async def test_inner_policy_admits_others_to_its_part(
    open_page: Open, page: Page, serve: Serve
) -> None:
    partner = await open_page("partner.example")
    origin = await open_page()
    app, _ = api(cors_middleware(origins=[origin]), error_middleware())
    part = web.Application(middlewares=[cors_middleware(origins=[partner])])
    part.router.add_route("*", "/", echo)
    app.add_subapp("/part", part)
    url = await serve(app)

    async def readable() -> list[str]:
        return [
            (await page.fetch(each, method=method)).text
            for each in (url, url / "part/")
            for method in ("GET", "PUT")
        ]

    assert await readable() == ["GET", "PUT", "GET", "PUT"]
    await page.visit(partner)
    assert await readable() == ["", "", "GET", "PUT"]


# Cookies
# =======


async def whoami(request: web.Request) -> web.StreamResponse:
    """Who has logged in; and ``?login=NAME`` does so, by a redirect."""
    name = request.query.get("login")
    if name is None:
        return web.Response(text=request.cookies.get("name", "nobody"))
    found = web.HTTPFound(request.path)
    found.set_cookie("name", name, httponly=True, secure=True, samesite="None")
    raise found


async def test_cookie_of_a_raised_redirect_comes_back(
    open_page: Open, page: Page, serve: Serve
) -> None:
    origin = await open_page(tls=True)
    cors = cors_middleware(origins=[origin], allow_credentials=True)
    app, seen = api(cors, error_middleware(), handler=whoami)
    url = await serve(app, tls=True)
    options = {"credentials": "include"}
    assert (await page.fetch(url, **options)).text == "nobody"
    login = url.with_query(login="ada")
    assert (await page.fetch(login, **options)).text == "ada"
    assert (await page.fetch(url, **options)).text == "ada"
    assert (await page.fetch(url)).text == "nobody"
    assert await page.run("return document.cookie") == ""
    assert seen == ["GET /"] * 5


async def test_without_credentials_allowed_nothing_is_read(
    open_page: Open, page: Page, serve: Serve
) -> None:
    origin = await open_page(tls=True)
    app, _ = api(cors_middleware(origins=[origin]), handler=whoami)
    url = await serve(app, tls=True)
    assert await page.fetch(url, credentials="include") == UNREADABLE
    assert (await page.fetch(url)).text == "nobody"


async def test_star_origin_is_for_requests_without_credentials(
    open_page: Open, page: Page, serve: Serve
) -> None:
    await open_page(tls=True)
    app, _ = api(cors_middleware(allow_all=True), handler=whoami)
    url = await serve(app, tls=True)
    assert await page.fetch(url, credentials="include") == UNREADABLE
    assert (await page.fetch(url)).headers["content-type"].startswith("text")


async def test_evil_page_reads_nothing_in_the_name_of_the_visitor(
    open_page: Open, page: Page, serve: Serve
) -> None:
    origin = await open_page(tls=True)
    cors = cors_middleware(origins=[origin], allow_credentials=True)
    app, _ = api(cors, handler=whoami)
    url = await serve(app, tls=True)
    login = url.with_query(login="ada")
    assert (await page.fetch(login, credentials="include")).text == "ada"
    await open_page("evil.example", tls=True)
    assert await page.fetch(url, credentials="include") == UNREADABLE


# Which headers
# =============


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, set()),
        ({"expose_headers": ["X-Total"]}, {"x-total"}),
        ({"expose_headers": ["*"]}, {"x-total", "x-secret"}),
        (
            {"expose_headers": ["x-total"], "allow_credentials": True},
            {"x-total"},
        ),
    ],
)
async def test_page_reads_the_exposed_headers_only(
    options: Any,
    expected: set[str],
    open_page: Open,
    page: Page,
    serve: Serve,
) -> None:
    app, _ = api(cors_middleware(origins=[await open_page()], **options))
    answer = await page.fetch(await serve(app))
    assert {name for name in answer.headers if name[0] == "x"} == expected


async def test_exposed_headers_of_handler_and_policy_are_all_read(
    open_page: Open, page: Page, serve: Serve
) -> None:
    async def own(request: web.Request) -> web.StreamResponse:
        return web.Response(
            headers={
                "Access-Control-Expose-Headers": "X-Own",
                "X-Own": "1",
                "X-Total": "2",
            }
        )

    cors = cors_middleware(
        origins=[await open_page()], expose_headers=["X-Total"]
    )
    app, _ = api(cors, handler=own)
    headers = (await page.fetch(await serve(app))).headers
    assert (headers["x-own"], headers["x-total"]) == ("1", "2")


# Errors
# ======


async def fails(request: web.Request) -> web.StreamResponse:
    match request.query["how"]:
        case "404":
            raise web.HTTPNotFound(text="No such note")
        case "503":
            raise web.HTTPServiceUnavailable(headers={"Retry-After": "5"})
        case "504":
            await asyncio.Event().wait()
    raise ValueError("unexpected")


@pytest.mark.parametrize("inside", [True, False], ids=["error", "aiohttp"])
@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("404", '{"detail": "No such note"}'),
        ("503", '{"detail": "Service Unavailable"}'),
        ("500", '{"detail": "unexpected"}'),
        ("504", '{"detail": "Request timed out"}'),
    ],
)
async def test_page_reads_what_went_wrong(
    how: str,
    text: str,
    inside: bool,
    open_page: Open,
    page: Page,
    serve: Serve,
) -> None:
    cors = cors_middleware(
        origins=[await open_page()], expose_headers=["Retry-After"]
    )
    answering = [error_middleware()] if inside else []
    timeout = timeout_middleware(0.05)
    app, _ = api(cors, *answering, timeout, handler=fails)
    answer = await page.fetch((await serve(app)).with_query(how=how))
    assert answer.status == int(how)
    assert answer.headers.get("retry-after") == ("5" if how == "503" else None)
    if inside:
        assert answer.text == text


async def test_page_reads_what_the_router_refuses(
    open_page: Open, page: Page, serve: Serve
) -> None:
    cors = cors_middleware(
        origins=[await open_page()], expose_headers=["allow"]
    )
    app, _ = api(cors)
    app.router.add_get("/notes", echo)
    url = await serve(app)
    assert (await page.fetch(url / "nowhere")).status == 404
    answer = await page.fetch(url / "notes", method="DELETE")
    assert answer.status == 405
    assert answer.headers["allow"] == "GET,HEAD"


# Caches
# ======


async def cached(request: web.Request) -> web.StreamResponse:
    return web.Response(text="hit", headers={"Cache-Control": "max-age=600"})


@web.middleware
async def no_vary(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What many do by hand, to see that the browser does poison itself."""
    response = await handler(request)
    if "Origin" in request.headers:
        origin = request.headers["Origin"]
        response.headers["Access-Control-Allow-Origin"] = origin
    return response


@pytest.mark.parametrize("ours", [True, False], ids=["cors", "by hand"])
async def test_cached_answer_for_one_page_is_no_poison_for_another(
    ours: bool, open_page: Open, page: Page, serve: Serve
) -> None:
    # A browser has one cache for all the pages of a site.
    one = await open_page("one.app.example")
    cors = cors_middleware(origins=["http://*.app.example:*"])
    app, seen = api(cors if ours else no_vary, handler=cached)
    url = await serve(app)
    assert (await page.fetch(url)).text == "hit"
    assert (await page.fetch(url)).text == "hit"
    assert len(seen) == 1  # it is cached

    await open_page("two.app.example")
    answer = await page.fetch(url)
    assert answer.text == ("hit" if ours else "")
    await page.visit(one)
    assert (await page.fetch(url)).text == "hit"


@pytest.mark.parametrize("ours", [True, False], ids=["cors", "by hand"])
async def test_cached_answer_for_an_image_is_no_poison_for_a_script(
    ours: bool, open_page: Open, page: Page, serve: Serve
) -> None:
    origin = await open_page()
    cors = cors_middleware(origins=[origin])
    app, seen = api(cors if ours else no_vary, handler=cached)
    url = await serve(app)
    # As an image or a style sheet is loaded: no Origin, and nothing to read.
    opaque = await page.fetch(url, mode="no-cors")
    assert opaque == UNREADABLE
    assert len(seen) == 1
    assert (await page.fetch(url)).text == ("hit" if ours else "")
