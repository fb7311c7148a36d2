"""Whatever a visitor writes, reading it costs no more than its length.

The functions are found, not listed: a new one that reads text is fed as well.
Nothing here looks at a clock that others can stop: what counts is the time of
this thread, and it is compared with itself.
"""

import gc
import inspect
import pkgutil
import time
import typing
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict, istr

from aiohttp_middlewares import (
    api_key_middleware,
    basic_auth_middleware,
    bearer_auth_middleware,
    cors_middleware,
    csrf_middleware,
    early_data_middleware,
    error_middleware,
    https_middleware,
    https_redirect_middleware,
    idempotency_middleware,
    jwt_verifier,
    problem_error_handler,
    proxy_headers_middleware,
    rate_limit_middleware,
    trusted_host_middleware,
)
from aiohttp_middlewares._core import grammar, options
from aiohttp_middlewares._core.grammar.authority import Authority
from aiohttp_middlewares._core.grammar.fields import VARY
from aiohttp_middlewares._core.grammar.origins import Origins
from aiohttp_middlewares.annotations import Middleware

Reader = Callable[[str], object]

# The shapes that hurt
# ====================

UNITS = [
    *' \t;,"\\=%.:[]*-@0a',
    "\u0300",  # combining marks: IDNA has to put them in order
    "ü",
    "\udcff",
    "\x00",
    "; ",
    "; ; ;=",
    " ;",
    " ,",
    "a,",
    "a;",
    ";q=",
    '="',
    '",',
    '\\"',
    '"a" ',
    "a=",
    "a=;",
    "a. ",
    "bearer ",
    "a.",
    "1.",
    "[:",
    "::",
    "*.",
    "://",
    "a://",
    "%25",
    "for=1,",
    'for="',
]
#: What goes before, and what after: the latter lets a reader fail at the end.
AROUND = [("", ""), ("gzip;", "=x="), ("https://a", "\x00")]
SHAPES = [(before, unit, after) for unit in UNITS for before, after in AROUND]


def grown(shape: tuple[str, str, str], size: int) -> str:
    before, unit, after = shape
    return before + unit * (size // len(unit)) + after


# What it costs
# =============

SMALL = range(8, 128, 4)
SIZES = [2**n for n in range(8, 17)]  # to 64 KB


def cost(call: Callable[[], object]) -> float:
    # What other tests left to the garbage collector is none of it.
    gc.disable()
    try:
        begun = time.thread_time()
        call()
        return time.thread_time() - begun
    finally:
        gc.enable()


def some_work() -> None:
    """What this machine needs for some ten thousand steps, just now."""
    for _ in range(30_000):
        pass


class Scale:
    """How much is nothing, and how much too much."""

    def __init__(self) -> None:
        # The processor and the interpreter may have to warm up first.
        unit = min(cost(some_work) for _ in range(20))
        self.nothing = unit
        self.too_much = 400 * unit


@pytest.fixture(scope="module")
def scale() -> Iterator[Scale]:
    # What other tests have left over would be collected in the time of one.
    gc.collect()
    gc.disable()
    try:
        yield Scale()
    finally:
        gc.enable()


def assert_linear(
    prepare: Callable[[str], Callable[[], object]],
    shape: tuple[str, str, str],
    scale: Scale,
) -> None:
    """Eight times the text may cost a few times eight times as much.

    It begins with little, and stops at the first that costs too much: what
    doubles with each character is found without waiting for its end.
    """

    def measure(size: int) -> float:
        call = prepare(grown(shape, size))
        found = cost(call)
        if found >= scale.too_much:  # once may be an accident
            found = cost(call)
        assert found < scale.too_much, f"{size} of {shape} are too much"
        return found

    for size in SMALL:
        measure(size)
    costs = dict(zip(SIZES, map(measure, SIZES), strict=True))
    for _ in range(3):
        if costs[65536] <= max(scale.nothing, 24 * costs[8192]):
            return
        # Somebody else may have taken the cache of this processor.
        costs = {size: min(costs[size], measure(size)) for size in costs}
    raise AssertionError(f"{shape} costs {costs}")


# The grammar floor
# =================

#: What else a function needs to be asked, by the name of its parameter.
BESIDE: dict[str, object] = {
    "best_media_type.offers": ["text/html", "text/plain"],
    "add_elements.added": ["Origin"],
    "add_elements.name": VARY,
    "cookie_values.name": "a",
    "origin_at.authority": Authority("a.example"),
    "strike_out.mark": "xxx",
    "strike_out.show": True,
}


def readers() -> Iterator[tuple[str, Reader]]:
    for found in pkgutil.iter_modules(grammar.__path__):
        module = import_module(f"{grammar.__name__}.{found.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ != module.__name__ or name.startswith("_"):
                continue
            yield f"{found.name}.{name}", reader(function)


def reader(function: Callable[..., Any]) -> Reader:
    """Give the text to each parameter that takes one."""
    hints = typing.get_type_hints(function)
    del hints["return"]
    forms = {
        f"{function.__name__}.{name}": (name, form_of(hint))
        for name, hint in hints.items()
    }

    def read(text: str) -> object:
        arguments = {}
        for what, (name, form) in forms.items():
            if what not in BESIDE:
                assert form, f"say in BESIDE what {what} may be"
                arguments[name] = form(text)
            else:
                arguments[name] = BESIDE[what]
        result = function(**arguments)
        if isinstance(result, Iterator):
            deque(result, 0)
        return result

    return read


def form_of(hint: Any) -> Callable[[str], object] | None:
    """How a parameter of this type takes a text."""
    if typing.get_origin(hint) is CIMultiDict:
        return lambda text: CIMultiDict({VARY: text})
    if typing.get_origin(hint) in LISTS:
        return lines_of
    if hint is str or str in typing.get_args(hint):
        return str
    return None


LISTS = {Iterable, Sequence, list, tuple}


def lines_of(text: str) -> list[str]:
    """As one line, or, if it is long, as a few."""
    return [text[: len(text) // 2], text[len(text) // 2 :], text[-100:]]


LISTED = options.origins(
    "test",
    ["https://a.example", "https://*.example.com", "http://localhost:*"],
)
READERS: dict[str, Reader] = {
    **dict(readers()),
    "origins.Origins.fit": LISTED.fit,
    "origins.Origins.add": lambda text: Origins().add(text),
}


def test_every_reader_is_found() -> None:
    assert {
        "authority.parse_authority",
        "cookies.cookie_values",
        "fields.weighted",
        "forwarded.forwarded_nearest_first",
        "networks.parse_node",
        "origins.parse_origin",
    } < set(READERS)


@pytest.mark.parametrize("name", READERS)
def test_reading_costs_no_more_than_the_length_of_a_text(
    name: str, scale: Scale
) -> None:
    read = READERS[name]
    for shape in SHAPES:
        assert_linear(lambda text: lambda: read(text), shape, scale)


# The rooms
# =========

MIDDLEWARES: list[tuple[Middleware, list[str]]] = [
    (
        proxy_headers_middleware(trusted=1, host=True),
        ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"],
    ),
    (
        proxy_headers_middleware(trusted=1, family="forwarded", host=True),
        ["Forwarded"],
    ),
    (
        proxy_headers_middleware(trusted=1, client_ip_header="X-Real-IP"),
        ["X-Real-IP"],
    ),
    (https_middleware(), ["X-Forwarded-Proto"]),
    (https_middleware({"Forwarded": "https"}), ["Forwarded"]),
    (trusted_host_middleware(["a.example", "*.b.example"]), ["Host"]),
    (https_redirect_middleware(), ["Host", "X-Forwarded-Proto", "Forwarded"]),
    (
        csrf_middleware(trusted_origins=["https://*.example.com"]),
        ["Origin", "Sec-Fetch-Site", "Host", "Upgrade"],
    ),
    (
        cors_middleware(
            origins=["https://*.example.com", "http://localhost:*"],
            allow_headers=["*"],
            allow_credentials=True,
        ),
        ["Origin"],
    ),
    (error_middleware(default_handler=problem_error_handler), ["Accept"]),
    (basic_auth_middleware({"a": "b"}), ["Authorization"]),
    (
        bearer_auth_middleware(
            jwt_verifier(
                "a secret of the tests, long enough",
                algorithms=["HS256"],
                issuer=None,
                audience=None,
            )
        ),
        ["Authorization"],
    ),
    (api_key_middleware({"a": "b"}), ["X-API-Key"]),
    (early_data_middleware(), ["Early-Data"]),
    (idempotency_middleware(), ["Idempotency-Key"]),
    (
        rate_limit_middleware(
            "1000000/second", key=lambda request: request.headers["X-Key"]
        ),
        ["X-Key"],
    ),
]


async def refuse(request: web.Request) -> web.StreamResponse:
    raise web.HTTPNotFound


def at_once(answer: Awaitable[object]) -> object:
    """Run what waits for nothing."""
    try:
        next(answer.__await__())
    except StopIteration as stop:
        return stop.value
    except web.HTTPException as exc:
        return exc
    raise AssertionError("it waits for something")


@pytest.mark.parametrize(
    ("middleware", "name"),
    [
        pytest.param(middleware, name, id=f"{number}-{name}")
        for number, (middleware, names) in enumerate(MIDDLEWARES)
        for name in names
    ],
)
def test_middleware_costs_no_more_than_the_length_of_a_header(
    middleware: Middleware, name: str, scale: Scale
) -> None:
    request = make_mocked_request("POST", "/")
    request.writer.output_size = 0

    def prepare(text: str) -> Callable[[], object]:
        text = text.encode("utf-8", "replace").decode()
        headers = CIMultiDict({"Host": "a.example"})
        headers.pop(name, None)
        headers.extend([(istr(name), line) for line in lines_of(text)[:2]])
        sent = request.clone(headers=headers)
        return lambda: at_once(middleware(sent, handler=refuse))

    for unit in UNITS:
        assert_linear(prepare, ("", unit, ""), scale)
