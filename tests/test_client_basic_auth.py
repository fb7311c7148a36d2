"""Basic auth: the credentials; where they go is tested with origins."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from client_site import Site, header_of, serve

from aiohttp_middlewares.client import (
    basic_auth_middleware,
)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serve() as site:
        yield site


@pytest.mark.parametrize(
    ("login", "password", "encoding", "header"),
    [
        ("Aladdin", "open sesame", "utf-8", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ("test", "123\u00a3", "utf-8", "dGVzdDoxMjPCow=="),  # RFC 7617 2.1
        ("test", "123\u00a3", "latin-1", "dGVzdDoxMjOj"),
        ("", "a:b", "utf-8", "OmE6Yg=="),
    ],
)
async def test_basic_credentials_are_those_of_the_standard(
    site: Site, login: str, password: str, encoding: str, header: str
) -> None:
    middleware = basic_auth_middleware(
        login, password, origins=[site.url], encoding=encoding
    )
    found = await header_of(
        site, middleware, "Authorization", headers={"Authorization": "mine"}
    )
    assert found == f"Basic {header}"


@pytest.mark.parametrize(
    ("args", "encoding", "message"),
    [
        (("hush:x", "hush"), "utf-8", "login should be without a colon"),
        (("hush\n", "hush"), "utf-8", "login should be without control"),
        (("x", "hush\x7f"), "utf-8", "password should be without control"),
        (("x", "hush\u20ac"), "latin-1", "encoding should be one that has"),
        (("x", "hush"), "nothing", "encoding should be one that has"),
        (("x", "hush"), None, "encoding should be a string, got None"),
        ((b"hush", "hush"), "utf-8", "login should be a string"),
        (("x", None), "utf-8", "password should be a string"),
    ],
)
def test_wrong_basic_credentials_are_refused_without_being_shown(
    args: Any, encoding: Any, message: str
) -> None:
    with pytest.raises(
        (TypeError, ValueError), match=f"^basic_auth_middleware {message}"
    ) as caught:
        basic_auth_middleware(
            *args, origins=["https://a.example"], encoding=encoding
        )
    assert "hush" not in str(caught.value)
