"""Whom GitHub lets in: users, organizations, teams, page by page."""

import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from sign_in_site import (
    CLIENT_ID,
    CLIENT_SECRET,
    NONSENSE,
    Answer,
    MemoryStorage,
    challenge,
    errors,
    links,
    location,
    note,
    says,
    says_json,
    served,
    site,
    told,
    visited,
    warnings,
)
from yarl import URL

from aiohttp_middlewares import github

__all__ = ("told",)


class GitHub:
    """As much of GitHub as signs visitors in, with pages of two."""

    def __init__(self) -> None:
        self.user: dict[str, Any] = {
            "login": "OctoCat",
            "id": 583231,
            "name": "The Octocat",
            "email": None,
            "avatar_url": "https://avatars.example/583231",
            "html_url": "https://github.example/OctoCat",
        }
        #: Name to state.
        self.orgs: dict[str, str] = {}
        self.teams: list[str] = []
        self.instead: dict[str, Answer] = {}
        self.asked: list[URL] = []
        self.forms: list[dict[str, str]] = []
        self.codes: dict[str, dict[str, str]] = {}
        self.tokens: set[str] = set()
        self.url = URL()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["GitHub"]:
        app = web.Application(middlewares=[self._answers])
        app.router.add_get("/login/oauth/authorize", self.authorize)
        app.router.add_post("/login/oauth/access_token", self.token)
        app.router.add_get("/api/v3/user", self.show_user)
        app.router.add_get("/api/v3/user/memberships/orgs", self.list_orgs)
        app.router.add_get("/api/v3/user/teams", self.list_teams)
        async with served(app) as url:
            self.url = url
            yield self

    @property
    def _answers(self) -> Any:
        @web.middleware
        async def answers(
            request: web.Request, handler: Any
        ) -> web.StreamResponse:
            self.asked.append(request.rel_url)
            if request.path.startswith("/api/"):
                assert request.headers["User-Agent"]
                scheme, _, token = request.headers["Authorization"].partition(
                    " "
                )
                assert scheme == "Bearer"
                assert token in self.tokens
            instead = self.instead.get(request.path)
            response: web.StreamResponse = await (instead or handler)(request)
            return response

        return answers

    async def authorize(self, request: web.Request) -> web.StreamResponse:
        asked = dict(request.query)
        code = secrets.token_hex(10)
        note(code, asked["state"])
        self.codes[code] = asked
        raise web.HTTPFound(
            URL(asked["redirect_uri"]).update_query(
                code=code, state=asked["state"]
            )
        )

    async def token(self, request: web.Request) -> web.StreamResponse:
        form = {
            name: values[0]
            for name, values in parse_qs(await request.text()).items()
        }
        self.forms.append(form)
        assert request.headers["Accept"] == "application/json"
        assert "Authorization" not in request.headers
        asked = self.codes.pop(form["code"], None)
        if form["client_secret"] != CLIENT_SECRET:
            return web.json_response({"error": "incorrect_client_credentials"})
        if (
            asked is None
            or challenge(form["code_verifier"]) != asked["code_challenge"]
            or form["redirect_uri"] != asked["redirect_uri"]
        ):
            return web.json_response(
                {
                    "error": "bad_verification_code",
                    "error_description": "The code passed is incorrect",
                }
            )
        token = f"gho_{secrets.token_hex(18)}"
        note(token)
        self.tokens.add(token)
        return web.json_response(
            {
                "access_token": token,
                "token_type": "bearer",
                "scope": asked.get("scope", ""),
            }
        )

    async def show_user(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self.user)

    async def list_orgs(self, request: web.Request) -> web.StreamResponse:
        return self.page(
            request,
            [
                {
                    "state": state,
                    "role": "member",
                    "organization": {"login": name, "id": 1},
                }
                for name, state in self.orgs.items()
            ],
        )

    async def list_teams(self, request: web.Request) -> web.StreamResponse:
        return self.page(
            request,
            [
                {
                    "name": "A name",
                    "slug": name.split("/")[1],
                    "organization": {"login": name.split("/")[0], "id": 1},
                }
                for name in self.teams
            ],
        )

    def page(
        self, request: web.Request, members: list[Any]
    ) -> web.StreamResponse:
        number = int(request.query.get("page", "1"))
        assert request.query["per_page"] == "100"
        headers = {}
        if number * 2 < len(members):
            following = request.url.update_query(page=str(number + 1))
            last = request.url.update_query(page=str(len(members)))
            headers["Link"] = f'<{following}>; rel="next", <{last}>; rel="last"'
        return web.json_response(
            members[number * 2 - 2 : number * 2], headers=headers
        )

    def provider(self, **options: Any) -> Any:
        return github(
            options.pop("client_id", CLIENT_ID),
            options.pop("client_secret", CLIENT_SECRET),
            api=self.url / "api/v3",
            site=self.url,
            **options,
        )


@pytest.fixture
async def hub() -> AsyncIterator[GitHub]:
    async with GitHub().running() as running:
        yield running


async def outcome(hub: GitHub, **options: Any) -> int:
    """The status of the callback."""
    async with visited(site(hub.provider(**options))) as visitor:
        response = await visitor.sign_in("/a")
        known = (await visitor.open("/who")).status
        assert known == (200 if response.status == 303 else 303)
        return response.status


# What it does
# ============


async def test_visitor_signs_in_with_github(hub: GitHub) -> None:
    app = site(
        hub.provider(users=["octocat"]),
        keep=("sub", "name", "preferred_username", "email", "picture"),
    )
    async with visited(app) as visitor:
        response = await visitor.sign_in("/a?b=c")
        assert location(response) == "/a?b=c"
        known = await visitor.who()
        assert known["user"] == "OctoCat"
        assert known["claims"] == {
            "sub": "583231",
            "name": "The Octocat",
            "preferred_username": "OctoCat",
            "picture": "https://avatars.example/583231",
        }
        [form] = hub.forms
        assert form["client_id"] == CLIENT_ID
        response = await visitor.open("/-/auth/logout", "POST")
        assert location(response) == "/-/auth/signed-out"


async def test_github_is_asked_with_state_and_a_challenge(
    hub: GitHub,
) -> None:
    app = site(hub.provider(users="*"), login_hint="octocat")
    async with visited(app) as visitor:
        asked = dict((await visitor.to_provider()).query)
        assert len(asked.pop("state")) >= 22
        assert len(asked.pop("code_challenge")) == 43
        assert asked == {
            "response_type": "code",
            "client_id": CLIENT_ID,
            "redirect_uri": str(visitor.base / "-/auth/callback"),
            "code_challenge_method": "S256",
            "login": "octocat",
        }


@pytest.mark.parametrize(
    ("options", "scope"),
    [
        ({"users": "*"}, None),
        ({"users": ["a"]}, None),
        ({"orgs": ["a"]}, "read:org"),
        ({"teams": ["a/b"]}, "read:org"),
        ({"orgs": ["a"], "scopes": ()}, None),
        ({"users": "*", "scopes": ["user:email", "x"]}, "user:email x"),
    ],
)
async def test_no_more_is_asked_for_than_is_needed(
    hub: GitHub, options: dict[str, Any], scope: str | None
) -> None:
    async with visited(site(hub.provider(**options))) as visitor:
        assert (await visitor.to_provider()).query.get("scope") == scope


async def test_sites_are_those_of_github_by_default() -> None:
    app = site(github("id", "secret", users="*"))
    async with visited(app) as visitor:
        url = await visitor.to_provider()
        assert str(url.with_query(None)) == (
            "https://github.com/login/oauth/authorize"
        )


# Who is let in
# =============


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"users": "*"}, 303),
        ({"users": ["OCTOCAT"]}, 303),
        ({"users": ["monalisa", "octocat"]}, 303),
        ({"users": ["monalisa"]}, 403),
        ({"users": ["octoca"]}, 403),
        ({"users": ["583231"]}, 403),
        ({"orgs": ["FIFTH"]}, 303),
        ({"orgs": ["first"]}, 303),
        ({"orgs": ["sixth"]}, 403),
        ({"orgs": ["invited"]}, 403),
        ({"teams": ["First/Justice-League"]}, 303),
        ({"teams": ["fifth/eaters"]}, 303),
        ({"teams": ["first/eaters"]}, 403),
        ({"teams": ["fifth/justice-league"]}, 403),
        (
            {"users": ["monalisa"], "orgs": ["x"], "teams": ["fifth/eaters"]},
            303,
        ),
        ({"users": ["monalisa"], "orgs": ["x"], "teams": ["x/y"]}, 403),
    ],
    ids=str,
)
async def test_who_is_in_any_of_them_is_let_in(
    hub: GitHub, options: dict[str, Any], status: int
) -> None:
    hub.orgs = {
        "First": "active",
        "second": "active",
        "Invited": "pending",
        "fourth": "active",
        "Fifth": "active",
    }
    hub.teams = [
        "first/justice-league",
        "second/a",
        "second/b",
        "second/c",
        "Fifth/Eaters",
    ]
    assert await outcome(hub, **options) == status


async def test_page_says_who_is_not_let_in(
    hub: GitHub, told: list[logging.LogRecord]
) -> None:
    hub.user["login"] = "<b>octo"
    async with visited(site(hub.provider(users=["x"]))) as visitor:
        response = await visitor.sign_in("/a")
        assert response.status == 403
        text = await response.text()
        assert "&lt;b&gt;octo of GitHub is not let in here." in text
        assert links(text) == ["/-/auth/sign-in?next=/a"]
    assert warnings(told) == []


async def test_nothing_is_asked_that_does_not_matter(hub: GitHub) -> None:
    await outcome(hub, users=["octocat"], orgs=["a"], teams=["a/b"])
    paths = [url.path for url in hub.asked if url.path.startswith("/api/")]
    assert paths == ["/api/v3/user"]


async def test_list_is_read_no_further_than_needed(hub: GitHub) -> None:
    hub.orgs = dict.fromkeys("abcdefgh", "active")
    await outcome(hub, orgs=["c"])
    pages = [
        url.query.get("page") for url in hub.asked if "memberships" in url.path
    ]
    assert pages == [None, "2"]


@pytest.mark.parametrize("status", [403, 404])
async def test_list_that_may_not_be_seen_is_empty(
    hub: GitHub, status: int
) -> None:
    """No scope was granted, or the organization does not know the app."""
    hub.teams = ["a/b"]
    hub.instead["/api/v3/user/memberships/orgs"] = says_json(
        {"message": "Resource protected"}, status
    )
    assert await outcome(hub, orgs=["a"]) == 403
    assert await outcome(hub, orgs=["a"], teams=["a/b"]) == 303


# When it goes wrong
# ==================


LISTS = ("/api/v3/user/memberships/orgs", "/api/v3/user/teams")


@pytest.mark.parametrize(
    ("path", "nonsense"),
    [
        (path, nonsense)
        for path in ("/login/oauth/access_token", "/api/v3/user", *LISTS)
        for nonsense in NONSENSE
        # Which are answers.
        if path not in LISTS or nonsense not in ("404", "list")
    ],
)
async def test_nonsense_is_a_page_and_a_warning(
    hub: GitHub, told: list[logging.LogRecord], path: str, nonsense: str
) -> None:
    hub.instead[path] = NONSENSE[nonsense]
    app = site(hub.provider(orgs=["a"], teams=["a/b"]), timeout=0.3)
    async with visited(app) as visitor:
        response = await visitor.sign_in("/a")
        assert response.status == 502
        assert links(await response.text()) == ["/-/auth/sign-in?next=/a"]
    assert errors(told) == []
    assert len(warnings(told)) == 1
    assert "/stolen" not in [url.path for url in hub.asked]


@pytest.mark.parametrize(
    "answer",
    [
        says("{}", 401),
        says("{}", 403, **{"X-RateLimit-Remaining": "0"}),
        says("{}", 403, **{"Retry-After": "60"}),
        says("{}", 429),
    ],
)
async def test_limit_that_was_reached_is_no_refusal(
    hub: GitHub, answer: Answer
) -> None:
    hub.instead["/api/v3/user/memberships/orgs"] = answer
    assert await outcome(hub, orgs=["a"]) == 502


@pytest.mark.parametrize(
    "user",
    [
        {},
        {"login": "octocat"},
        {"id": 1},
        {"login": "", "id": 1},
        {"login": 7, "id": 1},
        {"login": "octocat", "id": "1"},
        {"login": "octocat", "id": True},
        {"login": None, "id": None},
    ],
    ids=str,
)
async def test_account_without_name_and_number_is_nobody(
    hub: GitHub, user: dict[str, Any]
) -> None:
    hub.user = user
    assert await outcome(hub, users="*") == 502


@pytest.mark.parametrize(
    "members",
    [
        [None, 7, "a", [], {}],
        [{"organization": None, "slug": None}],
        [{"organization": {"login": 7}, "slug": []}],
        [{"organization": "a", "slug": "b"}],
        [{"state": "active", "organization": []}],
    ],
    ids=str,
)
async def test_members_that_are_none_let_nobody_in(
    hub: GitHub, members: Any
) -> None:
    for name in ("memberships/orgs", "teams"):
        hub.instead[f"/api/v3/user/{name}"] = says_json(members)
    assert await outcome(hub, orgs=["a"], teams=["a/b"]) == 403


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("http://localhost:{port}", "names a page elsewhere"),
        ("//localhost:{port}", "names a page elsewhere"),
        ("mailto:{port}@example.com", "names a page elsewhere"),
        ("https://127.0.0.1:{port}", "names a page elsewhere"),
        ("http://[::1", "is away: ValueError"),
    ],
)
async def test_token_goes_nowhere_else(
    hub: GitHub, told: list[logging.LogRecord], host: str, reason: str
) -> None:
    url = f"{host.format(port=hub.url.port)}/api/v3/user/teams"
    hub.instead["/api/v3/user/teams"] = says("[]", Link=f'<{url}>; rel="next"')
    assert await outcome(hub, teams=["a/b"]) == 502
    assert [url.path for url in hub.asked].count("/api/v3/user/teams") == 1
    assert warnings(told) == [f"Nobody can sign in at GitHub: the API {reason}"]


async def test_pages_without_end_are_left(
    hub: GitHub, told: list[logging.LogRecord]
) -> None:
    url = hub.url / "api/v3/user/teams"
    hub.instead["/api/v3/user/teams"] = says("[]", Link=f'<{url}>; rel="next"')
    assert await outcome(hub, teams=["a/b"]) == 502
    assert [url.path for url in hub.asked].count("/api/v3/user/teams") == 50
    assert warnings(told) == [
        "Nobody can sign in at GitHub: the API has more than 50 pages"
    ]


async def test_code_that_github_does_not_take_is_a_refusal(
    hub: GitHub, told: list[logging.LogRecord]
) -> None:
    """Its status is 200."""
    async with visited(site(hub.provider(users="*"))) as visitor:
        callback = await visitor.back_from(await visitor.to_provider())
        response = await visitor.open(callback.update_query(code="made-up"))
        assert response.status == 403
        assert "bad_verification_code" in await response.text()
    assert warnings(told) == []


async def test_wrong_secret_is_told_to_the_operator(
    hub: GitHub, told: list[logging.LogRecord]
) -> None:
    assert await outcome(hub, users="*", client_secret="wrong") == 502
    assert warnings(told) == [
        "Nobody can sign in at GitHub: the token endpoint refused with "
        "incorrect_client_credentials"
    ]


async def test_number_stays_when_the_name_changes(hub: GitHub) -> None:
    subs = []
    for name in ("octocat", "monalisa"):
        hub.user["login"] = name
        app = site(hub.provider(users="*"), storage=MemoryStorage())
        async with visited(app) as visitor:
            await visitor.sign_in()
            known = await visitor.who()
            assert known["user"] == name
            subs.append(known["claims"]["sub"])
    assert subs == ["583231", "583231"]


# Misconfiguration
# ================


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, r'who is let in.*users="\*" says anybody'),
        ({"users": ()}, ValueError, "who is let in"),
        ({"users": ["*"]}, ValueError, r"users should be logins.*'\*'"),
        ({"users": "octocat"}, TypeError, "a collection of strings"),
        ({"users": [7]}, TypeError, "a collection of strings"),
        ({"users": [""]}, ValueError, "a collection of non-empty strings"),
        ({"users": ["a/b"]}, ValueError, "users should be single names"),
        ({"orgs": "a"}, TypeError, "a collection of strings"),
        ({"orgs": ["a/b"]}, ValueError, "orgs should be single names"),
        ({"teams": ["a"]}, ValueError, "'organization/slug', got 'a'"),
        ({"teams": ["a/"]}, ValueError, "'organization/slug'"),
        ({"teams": ["a/b/c"]}, ValueError, "'organization/slug'"),
        (
            {"users": "*", "scopes": ["a b"]},
            ValueError,
            r"did you mean \['a', 'b'\]",
        ),
        ({"users": "*", "api": "http://a.example"}, ValueError, "https URL"),
        ({"users": "*", "site": "github.com"}, ValueError, "https URL"),
        ({"users": "*", "session": 7}, TypeError, "a ClientSession"),
        (
            {"users": "*", "client_secret": ""},
            ValueError,
            "github client_secret should not be empty",
        ),
        (
            {"users": "*", "client_secret": None},
            TypeError,
            "github client_secret should be a string",
        ),
        ({"users": "*", "client_id": ""}, ValueError, "github client_id"),
    ],
    ids=str,
)
def test_misconfiguration_is_told_when_it_is_built(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments: dict[str, Any] = {
        "client_id": "id",
        "client_secret": "hidden",
        **options,
    }
    with pytest.raises(error, match=message) as caught:
        github(**arguments)
    assert "hidden" not in str(caught.value)
