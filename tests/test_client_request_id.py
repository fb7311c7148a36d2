"""The request id: who gets it is tested with origins."""

from collections.abc import AsyncIterator

import pytest
from client_site import Site, header_of, serve

from aiohttp_middlewares._core.request_id import REQUEST_ID
from aiohttp_middlewares.client import (
    propagate_request_id_middleware,
)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with serve() as site:
        yield site


async def test_request_id_of_the_current_request_is_sent(
    site: Site,
) -> None:
    REQUEST_ID.set("id")
    propagate = propagate_request_id_middleware(origins=[site.url])
    assert await header_of(site, propagate, "X-Request-ID") == "id"
    kept = {"x-request-id": "mine"}
    found = await header_of(site, propagate, "X-Request-ID", headers=kept)
    assert found == "mine"


async def test_no_request_id_is_sent_outside_of_a_request(
    site: Site,
) -> None:
    REQUEST_ID.set(None)
    propagate = propagate_request_id_middleware(origins=[site.url])
    assert await header_of(site, propagate, "X-Request-ID") is None


@pytest.mark.parametrize("header", ["", "a b", "a:b", "a\n"])
def test_what_is_no_header_name_is_refused(header: str) -> None:
    with pytest.raises(
        ValueError, match=r"^propagate_request_id_.* header should be a header"
    ):
        propagate_request_id_middleware(
            origins=["https://a.example"], header=header
        )
