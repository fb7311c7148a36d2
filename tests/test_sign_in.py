"""Visitors sign in, come back to where they were, and leave."""

import asyncio
import json
import logging
from typing import Any

import aiohttp_session
import pytest
from aiohttp import web
from sign_in_site import (
    CLIENT_ID,
    CLIENT_SECRET,
    HTML,
    KEY,
    NAVIGATE,
    Clock,
    Issuer,
    Visitor,
    errors,
    hangs,
    issuer,
    links,
    location,
    served,
    site,
    state_of,
    told,
    visited,
    visitor_of,
    warnings,
)
from yarl import URL

from aiohttp_middlewares import (
    get_user,
    openid_connect,
    session_middleware,
    sign_in_middleware,
    sign_in_url,
)
from aiohttp_middlewares.annotations import Handler
from aiohttp_middlewares.sign_in import Provider

__all__ = ("issuer", "told")


def provider(issuer: Issuer, **options: Any) -> Provider:
    return openid_connect(issuer.issuer, CLIENT_ID, CLIENT_SECRET, **options)


# What it does
# ============


async def test_visitor_signs_in_and_comes_back_to_where_he_was(
    issuer: Issuer,
) -> None:
    async with visited(site(provider(issuer))) as visitor:
        response = await visitor.sign_in("/notes/7?sort=new&x=%2F#top")
        assert location(response) == "/notes/7?sort=new&x=%2F"
        known = await visitor.who()
        assert known["user"] == "24400320"
        assert known["claims"] == {
            "sub": "24400320",
            "name": "Jane Doe",
            "preferred_username": "j.doe",
            "email": "jane@example.com",
            "email_verified": True,
        }
