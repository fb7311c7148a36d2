"""The page, served from an origin of its own."""

from dataclasses import asdict
from pathlib import Path

from aiohttp import web

import aiohttp_middlewares
from aiohttp_middlewares import csp_nonce, security_headers_middleware
from examples.demo.api import LIMIT
from examples.demo.attempt import attempt
from examples.demo.scenarios import MIDDLEWARES, TASKS, scenarios
from examples.demo.source import excerpts

FOLDER = Path(__file__).parent
NO_CACHE = {"Cache-Control": "no-cache"}


def create_page(page: str, api: str) -> web.Application:
    """The application that serves the page to ``page``, which asks ``api``."""

    async def index(request: web.Request) -> web.StreamResponse:
        if f"http://{request.host}" != page:
            # By another name it has another origin, and the API refuses that.
            raise web.HTTPFound(page)
        # Not a file: no copy that is kept has the nonce of this answer.
        html = (FOLDER / "page.html").read_text(encoding="utf-8")
        return web.Response(
            text=html.replace("{nonce}", csp_nonce(request)),
            content_type="text/html",
            headers=NO_CACHE,
        )

    async def asset(request: web.Request) -> web.StreamResponse:
        return _file(f"page.{request.match_info['kind']}")

    async def ask(request: web.Request) -> web.Response:
        """Try what no page can send, or read the answer of."""
        scenario = relayed.get(request.match_info["number"])
        if scenario is None:
            raise web.HTTPNotFound
        return web.json_response(await attempt(api, scenario))

    async def table(request: web.Request) -> web.Response:
        return web.json_response(shown)

    entries = scenarios(page)
    relayed = {
        str(number): scenario
        for number, scenario in enumerate(entries)
        if scenario.relay
    }
    shown = {
        "api": api,
        "limit": LIMIT,
        "tasks": TASKS,
        "middlewares": {
            name: {"title": _title(name), "purpose": purpose}
            for name, purpose in MIDDLEWARES.items()
        },
        "scenarios": [
            asdict(scenario)
            | {
                "curl": scenario.curl(api),
                "docs": scenario.documentation(),
                "number": number,
                "source": [asdict(each) for each in excerpts(scenario)],
            }
            for number, scenario in enumerate(entries)
        ],
    }
    app = web.Application(
        middlewares=[
            security_headers_middleware(
                content_security_policy={
                    "default-src": ["'none'"],
                    "connect-src": ["'self'", api],
                    "img-src": ["data:"],
                    "script-src": ["'nonce-{nonce}'"],
                    # The answers that are shown in frames have styles within.
                    "style-src": ["'self'", "'unsafe-inline'"],
                    "base-uri": ["'none'"],
                    "form-action": ["'none'"],
                    "frame-ancestors": ["'none'"],
                },
            )
        ]
    )
    app.router.add_get("/", index)
    app.router.add_get("/page.{kind:css|js}", asset)
    app.router.add_get("/scenarios.json", table)
    app.router.add_post("/attempts/{number}", ask)
    return app


def _file(name: str) -> web.FileResponse:
    return web.FileResponse(FOLDER / name, headers=NO_CACHE)


def _title(name: str) -> str:
    """What an application imports."""
    factory = f"{name}_middleware"
    if factory in aiohttp_middlewares.__all__:
        return factory
    return f"aiohttp_middlewares.{name}"
