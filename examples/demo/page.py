"""The page, served from an origin of its own."""

from dataclasses import asdict
from pathlib import Path

from aiohttp import web

from examples.demo.api import LIMIT
from examples.demo.attempt import attempt
from examples.demo.scenarios import MIDDLEWARES, scenarios

FOLDER = Path(__file__).parent


def create_page(page: str, api: str) -> web.Application:
    """The application that serves the page to ``page``, which asks ``api``."""

    async def index(request: web.Request) -> web.StreamResponse:
        if f"http://{request.host}" != page:
            # By another name it has another origin, and the API refuses that.
            raise web.HTTPFound(page)
        return _file("page.html")

    async def asset(request: web.Request) -> web.StreamResponse:
        return _file(f"page.{request.match_info['kind']}")

    async def ask(request: web.Request) -> web.Response:
        """Try what no page can send, or read the answer of."""
        scenario = relayed.get(request.match_info["number"])
        if scenario is None:
            raise web.HTTPNotFound
        return web.json_response(await attempt(api, scenario))

    async def table(request: web.Request) -> web.Response:
        return web.json_response(
            {
                "api": api,
                "limit": LIMIT,
                "middlewares": MIDDLEWARES,
                "scenarios": [
                    asdict(scenario)
                    | {"curl": scenario.curl(api), "number": number}
                    for number, scenario in enumerate(entries)
                ],
            }
        )

    entries = scenarios(page)
    relayed = {
        str(number): scenario
        for number, scenario in enumerate(entries)
        if scenario.relay
    }
    app = web.Application()
    app.router.add_get("/", index)
    app.router.add_get("/page.{kind:css|js}", asset)
    app.router.add_get("/scenarios.json", table)
    app.router.add_post("/attempts/{number}", ask)
    return app


def _file(name: str) -> web.FileResponse:
    return web.FileResponse(
        FOLDER / name, headers={"Cache-Control": "no-cache"}
    )
