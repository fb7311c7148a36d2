"""Sign-ins at GitHub, and at servers of its kind."""

from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any, Literal

from aiohttp import ClientSession, hdrs
from yarl import URL

from aiohttp_middlewares._core import options
from aiohttp_middlewares.annotations import StrCollection
from aiohttp_middlewares.sign_in._attempt import Attempt
from aiohttp_middlewares.sign_in._provider import (
    Answer,
    Failed,
    Identity,
    Provider,
    Refused,
    ask,
)

#: Of a list so many pages are read, of a hundred each.
MOST_PAGES = 50


def github(
    client_id: str,
    client_secret: str,
    *,
    users: StrCollection | Literal["*"] = (),
    orgs: StrCollection = (),
    teams: StrCollection = (),
    scopes: StrCollection | None = None,
    api: str | URL = "https://api.github.com",
    site: str | URL = "https://github.com",
    session: ClientSession | None = None,
) -> Provider:
    """Have visitors sign in with GitHub.

    The user is the login. The claims are ``sub``, the number of the account
    as text, which stays when the login changes, and under the names of OpenID
    Connect ``preferred_username`` (the login), ``name``, ``email`` (the public
    one), ``picture`` and ``profile``.

    :param client_id: That of the OAuth app. Its callback URL is
        ``https://yours.example/-/auth/callback``.
    :param client_secret: Its secret.
    :param users:
        Logins that are let in, in any case; ``"*"`` for anybody who has an
        account. By default: none.
    :param orgs:
        Organizations whose members are let in. By default: none.
    :param teams:
        Teams whose members are let in, each as ``"organization/slug"``. By
        default: none.
    :param scopes:
        What to ask for. By default ``read:org`` where there are ``orgs`` or
        ``teams``, and nothing otherwise.
    :param api: The API. Of an Enterprise server ``https://HOST/api/v3``.
    :param site: Where visitors sign in.
    :param session:
        What to ask with. By default a new one each time.
    :raises TypeError: an option is of the wrong type.
    :raises ValueError: nobody would be let in, or an option is malformed.
    """
    what = "github"
    anybody = users == "*"
    logins = () if anybody else options.strings(f"{what} users", users)
    organizations = options.strings(f"{what} orgs", orgs)
    groups = options.strings(f"{what} teams", teams)
    if not (anybody or logins or organizations or groups):
        raise ValueError(
            f"{what} should be told who is let in, by users, orgs or teams; "
            'users="*" says anybody'
        )
    if "*" in logins:
        options.refuse(
            ValueError, f"{what} users", "logins", logins, meant="'*'"
        )
    for option, names in (("users", logins), ("orgs", organizations)):
        for name in names:
            if "/" in name:
                options.refuse(
                    ValueError, f"{what} {option}", "single names", name
                )
    for name in groups:
        parts = name.split("/")
        if len(parts) != 2 or not all(parts):
            options.refuse(
                ValueError, f"{what} teams", "'organization/slug'", name
            )
    if client_secret is None:
        raise TypeError(f"{what} client_secret should be a string")
    if scopes is None:
        scopes = ("read:org",) if organizations or groups else ()
    return _GitHub(
        client_id,
        client_secret,
        scopes,
        session,
        api=options.secure_url(f"{what} api", api),
        site=options.secure_url(f"{what} site", site),
        users=None if anybody else _folded(logins),
        orgs=_folded(organizations),
        teams=_folded(groups),
    )


def _folded(names: Collection[str]) -> frozenset[str]:
    """Names at GitHub have no case."""
    return frozenset(name.casefold() for name in names)


class _GitHub(Provider):
    def __init__(
        self,
        client_id: object,
        client_secret: object,
        scopes: object,
        session: object,
        *,
        api: URL,
        site: URL,
        users: frozenset[str] | None,
        orgs: frozenset[str],
        teams: frozenset[str],
    ) -> None:
        super().__init__(
            "github", "GitHub", client_id, client_secret, scopes, session
        )
        self._api = api
        self._site = site
        self._users = users  # None: anybody
        self._orgs = orgs
        self._teams = teams

    @property
    def identity(self) -> tuple[str, ...]:
        return ("github", str(self._site), self.client_id)

    async def start(
        self, attempt: Attempt, redirect_uri: str, hint: str | None
    ) -> URL:
        endpoint = self._site / "login/oauth/authorize"
        return self.authorization(
            endpoint, attempt, redirect_uri, {"login": hint}
        )

    async def finish(
        self,
        attempt: Attempt,
        redirect_uri: str,
        answer: Mapping[str, str],
        wanted: Collection[str],
    ) -> Identity:
        code = self.check_answer(answer)
        async with self.client() as client:
            tokens = await self.exchange(
                client,
                self._site / "login/oauth/access_token",
                attempt,
                redirect_uri,
                code,
                by_basic=False,
            )
            api = _Api(client, self._api, tokens["access_token"])
            account = (await api.get("user")).expect_object("the API")
            login, number = account.get("login"), account.get("id")
            if type(login) is not str or not login or type(number) is not int:
                raise Failed("the API did not say who it is")
            if not await self._is_let_in(api, login):
                raise Refused(
                    f"{login} of GitHub is not let in here.",
                    "the visitor is none of those who are let in",
                )
        claims = {
            "sub": str(number),
            "preferred_username": login,
            "name": account.get("name"),
            "email": account.get("email"),
            "picture": account.get("avatar_url"),
            "profile": account.get("html_url"),
        }
        return Identity(
            login,
            {
                name: value
                for name, value in claims.items()
                if isinstance(value, str)
            },
        )

    async def _is_let_in(self, api: "_Api", login: str) -> bool:
        """The cheapest question first."""
        if self._users is None or login.casefold() in self._users:
            return True
        if self._orgs:
            async for item in api.list("user/memberships/orgs"):
                if _is_active(item) and _org_of(item) in self._orgs:
                    return True
        if self._teams:
            async for item in api.list("user/teams"):
                team = f"{_org_of(item)}/{_text(item.get('slug'))}"
                if _is_active(item) and team in self._teams:
                    return True
        return False


def _is_active(item: Mapping[str, Any]) -> bool:
    """Whether it is no invitation that was not accepted yet."""
    return bool(item.get("state", "active") == "active")


def _org_of(item: Mapping[str, Any]) -> str:
    organization = item.get("organization")
    if not isinstance(organization, dict):
        return ""
    return _text(organization.get("login"))


def _text(value: object) -> str:
    return value.casefold() if isinstance(value, str) else ""


class _Api:
    """GitHub's REST API, in the name of a visitor."""

    def __init__(self, client: ClientSession, base: URL, token: str) -> None:
        self._client = client
        self._base = base
        self._headers = {
            hdrs.ACCEPT: "application/vnd.github+json",
            hdrs.AUTHORIZATION: f"Bearer {token}",
            "X-GitHub-Api-Version": "2022-11-28",
        }

    async def get(self, path: str) -> Answer:
        return await self._ask(self._base / path)

    async def list(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """The members of a list, page by page."""
        url: URL | None = (self._base / path).with_query(per_page="100")
        for _ in range(MOST_PAGES):
            if url is None:
                return
            # The token is for nobody else.
            if _origin_of(url) != _origin_of(self._base):
                raise Failed("the API names a page elsewhere")
            answer = await self._ask(url)
            if _may_not_know(answer):
                return
            answer.expect("the API")
            if not isinstance(answer.value, list):
                raise Failed("the API answered with no list")
            for item in answer.value:
                if isinstance(item, dict):
                    yield item
            url = answer.next
        raise Failed(f"the API has more than {MOST_PAGES} pages")

    async def _ask(self, url: URL) -> Answer:
        return await ask(self._client, url, "the API", headers=self._headers)


def _origin_of(url: URL) -> tuple[str, str | None, int | None]:
    # That of yarl fails for URLs such as mailto:a@b.example.
    return url.scheme, url.host, url.port


def _may_not_know(answer: Answer) -> bool:
    """Whether the visitor, or his organization, did not agree to show it.

    A limit that was reached is something else.
    """
    return answer.status == 404 or (
        answer.status == 403
        and answer.headers.get("X-RateLimit-Remaining") != "0"
        and hdrs.RETRY_AFTER not in answer.headers
    )
