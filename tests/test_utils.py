"""The helpers for middlewares of your own, and what the package looks like."""

import dataclasses
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

import aiohttp_middlewares
from aiohttp_middlewares import (
    IDEMPOTENT_METHODS,
    NON_IDEMPOTENT_METHODS,
    cors_middleware,
    error,
    error_middleware,
    https_middleware,
    match_path,
    shield_middleware,
    timeout_middleware,
)
from aiohttp_middlewares.annotations import Middleware
from aiohttp_middlewares.utils import match_request


@pytest.mark.parametrize(
    ("item", "path", "fits"),
    [
        ("/a", "/a", True),
        ("/a", "/a/", False),  # A trailing slash counts
        ("/a", "/ab", False),
        ("/a b", "/a b", True),
        (re.compile("/a"), "/ab", True),  # Anchored at the start only
        (re.compile("/a$"), "/ab", False),
        (re.compile("a"), "/a", False),
        # Of a URL the path counts, encoded or not.
        (URL("/a"), "/a", True),
        (URL("/a b"), "/a b", True),
        (URL("/é"), "/é", True),
        (URL("/x?y=1"), "/x", True),
        (URL("https://a.example/x"), "/x", True),
        (URL("https://a.example"), "/", True),
        (URL("/a%2Fb"), "/a%2Fb", True),
        (URL("/a%2Fb"), "/a/b", True),  # for those who pass ``rel_url.path``
        (URL("/a/b"), "/a%2Fb", False),  # the router tells them apart, too
        # What is no rule fits nothing, as upstream has it.
        (42, "/42", False),
        (None, "/", False),
        (len, "/", False),
        (b"/a", "/a", False),
        (re.compile(b"/a"), "/a", False),
        (["/a"], "/a", False),
    ],
)
def test_path_fits_a_rule(item: Any, path: str, fits: bool) -> None:
    assert match_path(item, path) is fits


@pytest.mark.parametrize(
    ("urls", "method", "path", "fits"),
    [
        (["/a", "/b"], "GET", "/b", True),
        (["/a", "/b"], "GET", "/c", False),
        ({"/a"}, "BREW", "/a", True),
        ([], "GET", "/a", False),
        ({}, "GET", "/a", False),
        ({"/a": "POST"}, "POST", "/a", True),
        ({"/a": "POST"}, "GET", "/a", False),
        ({"/a": "post"}, "POST", "/a", True),
        ({"/a": "POST"}, "post", "/a", True),
        ({"/a": ["GET", "post"]}, "POST", "/a", True),
        ({"/a": ("GET",)}, "POST", "/a", False),
        ({"/a": frozenset()}, "POST", "/a", False),
        # Any rule that fits both.
        (
            {re.compile("/api"): "GET", "/api/docs": "POST"},
            "POST",
            "/api/docs",
            True,
        ),
        (
            {"/api/docs": "POST", re.compile("/api"): "GET"},
            "GET",
            "/api/docs",
            True,
        ),
        (
            {re.compile("/api"): "GET", "/api/docs": "POST"},
            "PUT",
            "/api/docs",
            False,
        ),
        # M6: HEAD is a method of its own.
        ({"/a": "GET"}, "HEAD", "/a", False),
        ({"/a": ["GET", "HEAD"]}, "HEAD", "/a", True),
        # Upstream raised TypeError for each request.
        ({"/a": None}, "GET", "/a", False),
        ({"/a": 42}, "GET", "/a", False),
        ({"/a": [None, "GET"]}, "GET", "/a", True),
        ({"/a": "*"}, "GET", "/a", False),
        ({"/a": "GET,POST"}, "GET", "/a", False),
        ([42, None, "/a"], "GET", "/a", True),
        # Upstream took a string for the collection of its characters.
        ("/slow", "GET", "/", False),
        ("/slow", "GET", "/slow", True),
    ],
)
def test_request_fits_any_of_the_rules(
    urls: Any, method: str, path: str, fits: bool
) -> None:
    assert match_request(urls, method, path) is fits


def test_search_ends_at_the_first_rule_that_fits() -> None:
    # Upstream compared with all of them, always.
    class Counted:
        compared = 0

        def match(self, path: str) -> bool:
            Counted.compared += 1
            return path == "/a"

    rules: Any = [Counted() for _ in range(1_000)]
    assert match_request(rules, "GET", "/a")
    assert Counted.compared == 1


def test_constants_are_what_they_were() -> None:
    # Misnamed, and so said in their docstrings.
    assert IDEMPOTENT_METHODS == ("GET", "HEAD", "OPTIONS", "TRACE")
    assert NON_IDEMPOTENT_METHODS == ("DELETE", "PATCH", "POST", "PUT")


# What the package looks like
# ===========================

SOURCES = sorted(Path(aiohttp_middlewares.__file__).parent.rglob("*.py"))


def test_attrs_is_not_needed() -> None:
    # Upstream imported it without saying so.
    for path in SOURCES:
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"^\s*(?:import|from) attrs?\b", source, re.M)
    assert dataclasses.is_dataclass(error.ErrorContext)
    context = error.ErrorContext(ValueError(), "a", 500, {})
    with pytest.raises(dataclasses.FrozenInstanceError):
        context.status = 200  # type: ignore[misc]


@pytest.mark.parametrize(
    "function",
    [
        cors_middleware,
        error_middleware,
        error.get_error_response,
        error.get_error_handler,
        https_middleware,
        match_path,
        match_request,
        shield_middleware,
        timeout_middleware,
    ],
)
def test_annotations_resolve_at_run_time(function: Callable[..., Any]) -> None:
    # Those of upstream were imported for type checkers only.
    hints = typing.get_type_hints(function)
    if function.__name__.endswith("_middleware"):
        assert hints["return"] is Middleware


@pytest.mark.parametrize(
    ("middleware", "name"),
    [
        (cors_middleware(), "cors_middleware.<locals>.cors"),
        (error_middleware(), "error_middleware.<locals>.error"),
        (https_middleware(), "https_middleware.<locals>.https"),
        (
            shield_middleware(methods=["POST"]),
            "shield_middleware.<locals>.shield",
        ),
        (timeout_middleware(1), "timeout_middleware.<locals>.timeout"),
    ],
)
def test_profiler_can_tell_the_middlewares_apart(
    middleware: Any, name: str
) -> None:
    # All of upstream's are called "middleware".
    assert middleware.__qualname__ == name
    assert middleware.__name__ == name.rpartition(".")[2]
