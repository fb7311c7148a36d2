"""Applications that fail, and those who ask them."""

from collections.abc import Callable
from typing import Any

from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient
from pytest_aiohttp import AiohttpClient

from aiohttp_middlewares import (
    debug_error_handler,
    default_error_handler,
    error_context,
    error_middleware,
    problem_error_handler,
)
from aiohttp_middlewares.annotations import Handler, Middleware

LOGGER = "aiohttp_middlewares.error"
SHIPPED = [default_error_handler, problem_error_handler, debug_error_handler]
Client = TestClient[web.Request, web.Application]
AnyClient = TestClient[Any, None]
Raised = BaseException | type[BaseException]


def raising(raised: Raised | Callable[[], Raised]) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        if isinstance(raised, BaseException | type):
            raise raised
        raise raised()

    return handler


def page(handler: Handler, *middlewares: Middleware) -> web.Application:
    """An application of one page, ``/``, and of one more, ``/other``."""
    app = web.Application(middlewares=middlewares or [error_middleware()])
    app.router.add_route("*", "/", handler)
    app.router.add_route("*", "/other", handler)
    return app


async def ask(
    client: Client,
    path: str = "/",
    method: str = "GET",
    headers: dict[str, str] | list[tuple[str, str]] | None = None,
) -> ClientResponse:
    answer = await client.request(
        method, path, headers=headers, allow_redirects=False
    )
    await answer.read()
    return answer


async def shown(
    aiohttp_client: AiohttpClient, raised: Any, **options: Any
) -> tuple[int, Any]:
    """The status and the JSON that an error is answered with."""
    client = await aiohttp_client(
        page(raising(raised), error_middleware(**options))
    )
    answer = await ask(client)
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    return answer.status, await answer.json()


def named(name: str) -> Handler:
    """An error handler that says its name, and the status."""

    async def handler(request: web.Request) -> web.StreamResponse:
        with error_context(request) as context:
            return web.Response(text=name, status=context.status)

    return handler


class Failure(Exception):
    """With whatever attributes a test gives it."""

    def __init__(self, text: str = "failed", **attributes: Any) -> None:
        super().__init__(text)
        vars(self).update(attributes)


class SilentFailure(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


class FailingAttributes(Exception):
    @property
    def message(self) -> str:
        raise RuntimeError("no message")

    @property
    def status(self) -> int:
        raise RuntimeError("no status")

    @property
    def data(self) -> object:
        raise RuntimeError("no data")


class Falsy(Exception):
    def __bool__(self) -> bool:
        return False


Circle: list[Any] = []
Circle.append(Circle)


def decorated() -> web.HTTPException:
    exc = web.HTTPUnauthorized(
        headers=[
            ("WWW-Authenticate", "Negotiate"),
            ("WWW-Authenticate", 'Basic realm="x"'),
            ("Retry-After", "120"),
            ("ETag", '"x"'),
            ("X-Own", "1"),
            ("Vary", "Cookie"),
            ("Vary", "Accept"),
        ],
        reason="Who are you?",
    )
    exc.set_cookie("seen", "1", path="/login", httponly=True)
    exc.del_cookie("session")
    return exc


def login() -> web.HTTPException:
    exc = web.HTTPFound("/home", headers={"X-Own": "1"})
    exc.set_cookie("session", "secret")
    return exc


async def fails(request: web.Request) -> web.StreamResponse:
    raise ArithmeticError("the handler failed")


async def returns_nothing(request: web.Request) -> web.StreamResponse:
    return None  # type: ignore[return-value]


NASTY = "<script>alert('1')</script>&\"\ud800\x00"


BROWSER = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,"
    "image/avif,image/webp,*/*;q=0.8"
)


JSON, HTML, TEXT = "application/problem+json", "text/html", "text/plain"


def chain() -> Exception:
    try:
        try:
            try:
                raise KeyError("deepest & first")
            except KeyError:
                raise LookupError("in between")  # noqa: B904
        except LookupError as err:
            raise ValueError("<script>alert(1)</script>") from err
    except ValueError as err:
        return err


@web.middleware
async def cloning(request: web.Request, handler: Handler) -> web.StreamResponse:
    return await handler(request.clone())
