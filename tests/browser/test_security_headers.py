"""What a browser refuses to do by the headers of a page."""

from typing import Any

import pytest
from aiohttp import web

from aiohttp_middlewares import (
    csp_nonce,
    error_middleware,
    security_headers_middleware,
)
from browser.conftest import Open, Page, Serve

POLICY = {
    "default-src": ["'self'"],
    "script-src": ["'self'", "'nonce-{nonce}'"],
    "script-src-attr": ["'none'"],
    "frame-ancestors": ["*"],
}
HTML = """<!doctype html>
<script nonce="{nonce}">window.ran = ["nonce"]</script>
<script>ran.push("none")</script>
<script nonce="guessed">ran.push("guess")</script>
<script src="/script.js"></script>
<script src="{elsewhere}/script.js"></script>
<body onload="ran.push('attribute')">
<iframe></iframe>
"""


def site(elsewhere: object = "", **options: Any) -> web.Application:
    """A page that says what of it has run, and that has one frame."""

    async def page(request: web.Request) -> web.StreamResponse:
        html = HTML.format(nonce=csp_nonce(request), elsewhere=elsewhere)
        return web.Response(text=html, content_type="text/html")

    async def script(request: web.Request) -> web.StreamResponse:
        host = request.host.partition(":")[0]
        return web.Response(
            text=f"(window.ran ||= []).push('{host}')",
            content_type=request.query.get("as", "text/javascript"),
        )

    app = web.Application(
        middlewares=[
            security_headers_middleware(
                **{
                    "content_security_policy": POLICY,
                    "strict_transport_security": None,
                    **options,
                }
            ),
            error_middleware(),
        ]
    )
    app.router.add_get("/", page)
    app.router.add_get("/script.js", script)
    return app


ALL = [
    "nonce",
    "none",
    "guess",
    "app.example",
    "cdn.example",
    "attribute",
]


@pytest.mark.parametrize(
    ("options", "ran"),
    [
        ({}, ["nonce", "app.example"]),
        ({"content_security_policy_report_only": True}, ALL),
        ({"content_security_policy": None}, ALL),
        (
            {"content_security_policy": "script-src 'nonce-{nonce}' http:"},
            ["nonce", "app.example", "cdn.example"],
        ),
    ],
    ids=["default", "report only", "none", "string"],
)
async def test_script_runs_with_the_nonce_only(
    options: dict[str, Any], ran: list[str], page: Page, serve: Serve
) -> None:
    cdn = await serve(
        site(cross_origin_resource_policy="cross-origin"), "cdn.example"
    )
    url = await serve(site(cdn.origin(), **options), "app.example")
    nonces = set()
    for _ in range(2):
        await page.visit(url)
        assert await page.run("return window.ran") == ran
        # A page may read it as a property, styles and others may not.
        nonces.add(await page.run("return document.scripts[0].nonce"))
    assert len(nonces) == 2


async def test_script_injected_by_the_visitor_does_not_run(
    page: Page, serve: Serve
) -> None:
    url = await serve(site(), "app.example")
    await page.visit(url)
    found = await page.run(
        """
        window.ran = [];
        const heard = new Promise(resolve => {
          document.addEventListener("securitypolicyviolation",
            event => resolve(event.effectiveDirective));
        });
        document.body.innerHTML = '<img src="x:" onerror="ran.push(1)">';
        return [await heard, ran];
        """
    )
    assert found == ["script-src-attr", []]


FRAMED = """
const frame = document.createElement("iframe");
const loaded = new Promise(resolve => { frame.onload = resolve; });
frame.src = url;
document.body.append(frame);
await loaded;
return frame.contentWindow.length;  // its frames: none, if it is an error
"""


@pytest.mark.parametrize(
    ("options", "by_others", "by_itself"),
    [
        ({"x_frame_options": None}, 1, 1),
        ({"content_security_policy": None}, 0, 1),
        ({"content_security_policy": None, "x_frame_options": "DENY"}, 0, 0),
        (
            {
                "content_security_policy": {"frame-ancestors": ["'self'"]},
                "x_frame_options": None,
            },
            0,
            1,
        ),
        # The newer of the two is what counts.
        ({"x_frame_options": "DENY"}, 1, 1),
    ],
    ids=str,
)
async def test_page_is_framed_by_those_that_may(
    options: dict[str, Any],
    by_others: int,
    by_itself: int,
    open_page: Open,
    page: Page,
    serve: Serve,
) -> None:
    url = await serve(site(**options), "app.example")
    await page.visit(url)
    assert await page.run(FRAMED, url=url) == by_itself
    await open_page("evil.example")
    assert await page.run(FRAMED, url=url) == by_others


LOAD = """
return await new Promise(resolve => {
  const script = document.createElement("script");
  script.onload = () => resolve(window.ran ?? []);
  script.onerror = () => resolve("refused");
  script.src = url;
  document.head.append(script);
});
"""


@pytest.mark.parametrize(
    ("options", "kind", "ran"),
    [
        ({}, "text/javascript", "refused"),
        (
            {"cross_origin_resource_policy": "cross-origin"},
            "text/javascript",
            ["app.example"],
        ),
        # nosniff: what is no script by its type is not run as one.
        (
            {"cross_origin_resource_policy": "cross-origin"},
            "text/plain",
            "refused",
        ),
        (
            {
                "cross_origin_resource_policy": "cross-origin",
                "x_content_type_options": None,
            },
            "text/plain",
            ["app.example"],
        ),
    ],
    ids=str,
)
async def test_other_origins_embed_what_they_may(
    options: dict[str, Any],
    kind: str,
    ran: object,
    open_page: Open,
    page: Page,
    serve: Serve,
) -> None:
    url = await serve(site(**options), "app.example") / "script.js"
    await open_page("other.example")
    url = url.with_query({"as": kind})
    assert await page.run(LOAD, url=url) == ran


@pytest.mark.parametrize(
    ("options", "shared"),
    [({}, False), ({"cross_origin_opener_policy": None}, True)],
    ids=str,
)
async def test_window_that_is_opened_has_no_opener(
    options: dict[str, Any], shared: bool, page: Page, serve: Serve
) -> None:
    # By HTTPS: elsewhere browsers do not look at the header.
    url = await serve(site(**options), "app.example", tls=True)
    other = await serve(
        site(cross_origin_opener_policy=None), "other.example", tls=True
    )
    await page.visit(other)
    await page.run(
        "document.body.innerHTML = html",
        html=f'<a href="{url}" target="_self">here</a>',
    )
    await page.run("window.name = 'known'")
    await page.click("a")
    # The name of a window goes with those that may have a hold on it.
    assert await page.run("return window.crossOriginIsolated") is False
    assert (await page.run("return window.name") == "known") is shared


async def test_page_of_an_error_is_protected_too(
    open_page: Open, page: Page, serve: Serve
) -> None:
    url = await serve(site(), "app.example") / "missing"
    await page.visit(url)
    answer = await page.fetch(url)
    assert answer.status == 404
    for name, value in {
        "content-security-policy": "default-src 'self'",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-frame-options": "SAMEORIGIN",
    }.items():
        assert answer.headers[name].startswith(value)
    assert "server" not in answer.headers
