"""The way to the provider and back."""

import asyncio
import hashlib
import logging
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from types import ModuleType
from typing import Any, TypeAlias, TypeVar
from urllib.parse import quote

from aiohttp import hdrs, web

from aiohttp_middlewares._core import logs
from aiohttp_middlewares._core.cross_origin import is_cross_origin
from aiohttp_middlewares._core.grammar.authority import (
    DEFAULT_PORTS,
    Authority,
)
from aiohttp_middlewares._core.grammar.fields import weighted
from aiohttp_middlewares._core.requests import (
    authority_of,
    is_handshake,
    lines,
)
from aiohttp_middlewares._core.who import get_user
from aiohttp_middlewares.sign_in._attempt import Attempt, local_target
from aiohttp_middlewares.sign_in._once import Once
from aiohttp_middlewares.sign_in._pages import (
    BadGateway,
    BadRequest,
    Forbidden,
    InternalServerError,
    Unauthorized,
    page,
    see_other,
    wrong_method,
)
from aiohttp_middlewares.sign_in._provider import (
    Failed,
    Identity,
    Misdirected,
    Provider,
    Refused,
)
from aiohttp_middlewares.sign_in._visit import DoesNotFit, Visit

T = TypeVar("T")
#: What comes of a visitor who comes back.
Result: TypeAlias = Identity | Refused | Misdirected | Failed

logger: logging.Logger = logs.get_logger("aiohttp_middlewares.sign_in")

SEC_FETCH_MODE = "Sec-Fetch-Mode"
#: RFC 9110 15.5.2 wants a challenge; this one opens no dialog in a browser.
_CHALLENGE: dict[str, str] = {hdrs.WWW_AUTHENTICATE: 'Cookie realm="Sign in"'}


#: What answers a request to an address of ours.
Page: TypeAlias = Callable[[web.Request], Awaitable[web.HTTPException]]


class Flow:
    """What those are answered who are not known yet, come back, or leave.

    Each answer is an exception, which the middleware raises.
    """

    def __init__(
        self,
        aiohttp_session: ModuleType,
        provider: Provider,
        path: str,
        keep: tuple[str, ...],
        max_age: float,
        login_hint: str | Callable[[web.Request], str | None] | None,
        timeout: float,
        clock: Callable[[], float],
    ) -> None:
        self._aiohttp_session = aiohttp_session
        self._provider = provider
        self._path = path
        self._keep = keep
        self._max_age = max_age
        self._login_hint = login_hint
        self._timeout = timeout
        self._clock = clock
        self._once: Once[Result] = Once(clock)
        # So that nobody is known here by what another provider has said of
        # them, or this one to another client.
        bound = "\n".join((path, *provider.identity)).encode()
        digest = hashlib.sha256(bound).digest()
        self._name = urlsafe_b64encode(digest[:6]).decode()
        self.pages: Mapping[str, Page] = {
            f"{path}/sign-in": self.sign_in,
            f"{path}/callback": self.callback,
            f"{path}/logout": self.logout,
            f"{path}/signed-out": self.signed_out,
        }

    async def visit(self, request: web.Request) -> Visit:
        storage = request.get(self._aiohttp_session.STORAGE_KEY)
        if storage is None:
            raise RuntimeError(
                "sign_in_middleware needs session_middleware outside of it: "
                "put it before it in the list of middlewares"
            )
        session = await self._aiohttp_session.get_session(request)
        return Visit(request, storage, session, self._name)

    def known(self, visit: Visit) -> tuple[str, Mapping[str, Any]] | None:
        return visit.known(self._clock(), self._max_age)

    # Somebody unknown
    # ================

    async def turn_away(
        self, request: web.Request, visit: Visit
    ) -> web.HTTPException:
        if _is_navigation(request):
            return await self._begin(request, visit, target_of(request))
        logs.refused(logger, request, "nobody has signed in")
        return page(
            request,
            Unauthorized,
            401,
            "Sign in",
            "You have to sign in first.",
            ("Sign in", self._link("/")),
            _CHALLENGE,
        )

    async def sign_in(self, request: web.Request) -> web.HTTPException:
        """What ``sign_in_url()`` leads to."""
        if wrong := wrong_method(request, hdrs.METH_GET):
            return wrong
        target = local_target(request.rel_url.query.get("next", "/"))
        visit = await self.visit(request)
        if self._is_somebody(request, visit):
            return see_other(target)
        if lines(request, SEC_FETCH_MODE) not in ([], ["navigate"]):
            return await self.turn_away(request, visit)
        return await self._begin(request, visit, target)

    async def _begin(
        self, request: web.Request, visit: Visit, target: str
    ) -> web.HTTPException:
        hint = self._login_hint
        if callable(hint):
            hint = hint(request)
        redirect_uri = self._here(request, "callback")
        now = self._clock()
        attempt = Attempt.begin(target, now)
        try:
            location = await self._in_time(
                self._provider.start(attempt, redirect_uri, hint)
            )
            await visit.remember(attempt, now)
        except DoesNotFit:
            return self._does_not_fit(request)
        except Failed as exc:
            return self._failed(request, str(exc), target)
        return see_other(location)

    # Somebody who comes back
    # =======================

    async def callback(self, request: web.Request) -> web.HTTPException:
        if wrong := wrong_method(request, hdrs.METH_GET):
            return wrong
        visit = await self.visit(request)
        answer = _single(request)
        attempt = visit.take(answer.get("state", ""))
        if attempt is None:
            is_refusal = "error" in answer and "state" not in answer
            if is_refusal and not self._is_somebody(request, visit):
                # Some forget it when they refuse. Anybody can make such a
                # link: nothing of it is shown, and nothing changes.
                return self._refused(
                    request,
                    "the provider refused, and sent no state",
                    f"{self._provider.name} has not signed you in.",
                    "/",
                )
            return self._begin_anew(request, visit, "/")
        if attempt.is_old(self._clock()):
            return self._begin_anew(request, visit, attempt.target)
        redirect_uri = self._here(request, "callback")

        async def finish() -> Result:
            # For all who ask: to raise it would be for one of them.
            try:
                return await self._in_time(
                    self._provider.finish(
                        attempt, redirect_uri, answer, self._keep
                    )
                )
            except (Refused, Misdirected, Failed) as exc:
                return exc.with_traceback(None)

        found = await self._once.do(attempt.state, finish)
        if found is None:
            return self._begin_anew(request, visit, attempt.target)
        if isinstance(found, Refused):
            return self._refused(
                request, str(found), found.text, attempt.target
            )
        if isinstance(found, Misdirected):
            return self._begin_anew(request, visit, attempt.target, str(found))
        if isinstance(found, Failed):
            return self._failed(request, str(found), attempt.target)
        try:
            await visit.enter(
                self._aiohttp_session, found, self._keep, self._clock()
            )
        except DoesNotFit:
            return self._does_not_fit(request)
        return see_other(attempt.target)

    def _begin_anew(
        self,
        request: web.Request,
        visit: Visit,
        target: str,
        reason: str = "its state is wrong, was used or is old, or the "
        "session's cookie did not come",
    ) -> web.HTTPException:
        if self._is_somebody(request, visit):
            return see_other(target)
        logs.refused(logger, request, reason)
        return page(
            request,
            BadRequest,
            400,
            "Sign in again",
            "This sign-in is too old, was used before, or was begun in "
            "another browser.",
            ("Try again", self._link(target)),
        )

    def _refused(
        self, request: web.Request, reason: str, text: str, target: str
    ) -> web.HTTPException:
        logs.refused(logger, request, reason)
        return page(
            request,
            Forbidden,
            403,
            "Not signed in",
            text,
            ("Try again", self._link(target)),
        )

    def _failed(
        self, request: web.Request, reason: str, target: str
    ) -> web.HTTPException:
        name = self._provider.name
        facts = logs.facts(request, provider=name, reason=reason)
        logger.warning(
            "Nobody can sign in at %(provider)s: %(reason)s",
            facts,
            extra=facts,
        )
        return page(
            request,
            BadGateway,
            502,
            "Not signed in",
            f"{name} did not answer as it should.",
            ("Try again", self._link(target)),
        )

    def _does_not_fit(self, request: web.Request) -> web.HTTPException:
        logger.error(
            "A sign-in does not fit the 4096 bytes of the session cookie: "
            "keep fewer claims, or use a storage on the server",
            extra=logs.facts(request, keep=self._keep),
        )
        return page(
            request,
            InternalServerError,
            500,
            "Not signed in",
            "What is kept of you does not fit the session, a cookie of 4096 "
            "bytes: this site has to keep less, or keep it elsewhere.",
        )

    # Somebody who leaves
    # ===================

    async def logout(self, request: web.Request) -> web.HTTPException:
        if wrong := wrong_method(request, hdrs.METH_POST):
            return wrong
        if is_cross_origin(request):
            logs.refused(logger, request, "it comes from another origin")
            return page(
                request,
                Forbidden,
                403,
                "Not signed out",
                "This has to be asked for by a page of this site.",
            )
        visit = await self.visit(request)
        signed_in = await visit.leave()
        location = None
        if signed_in is not None:
            back = self._here(request, "signed-out")
            try:
                location = await self._in_time(
                    self._provider.end(signed_in.get("id_token"), back)
                )
            except Failed as exc:
                facts = logs.facts(request, reason=str(exc))
                logger.warning(
                    "A visitor signed out here only: %(reason)s",
                    facts,
                    extra=facts,
                )
        return see_other(location or f"{self._path}/signed-out")

    async def signed_out(self, request: web.Request) -> web.HTTPException:
        if wrong := wrong_method(request, hdrs.METH_GET, hdrs.METH_HEAD):
            return wrong
        return page(
            request,
            web.HTTPOk,
            200,
            "Signed out",
            "You have signed out.",
            ("Sign in", self._link("/")),
        )

    # What they have in common
    # ========================

    def _link(self, target: str) -> str:
        return sign_in_link(self._path, target)

    def _is_somebody(self, request: web.Request, visit: Visit) -> bool:
        return get_user(request) is not None or self.known(visit) is not None

    def _here(self, request: web.Request, name: str) -> str:
        """The address of a page of ours, as the visitor's browser has it."""
        authority = authority_of(request)
        if authority is None:
            raise web.HTTPBadRequest(text="Invalid host header")
        if authority.port == DEFAULT_PORTS.get(request.scheme):
            authority = Authority(authority.host)
        return f"{request.scheme}://{authority}{self._path}/{name}"

    async def _in_time(self, what: Awaitable[T]) -> T:
        try:
            return await asyncio.wait_for(what, self._timeout)
        except asyncio.TimeoutError:
            raise Failed(f"it took longer than {self._timeout:g} s") from None


def target_of(request: web.Request) -> str:
    """Where a visitor is, to come back to."""
    return local_target(request.rel_url.raw_path_qs)


def sign_in_link(path: str, target: str) -> str:
    return f"{path}/sign-in?next={quote(target, safe='/')}"


def _is_navigation(request: web.Request) -> bool:
    """Whether the answer is for a person to read: Fetch Metadata 2.3."""
    if is_handshake(request):
        return False
    modes = lines(request, SEC_FETCH_MODE)
    if modes:
        return modes == ["navigate"]
    return request.method == hdrs.METH_GET and any(
        media == "text/html" and weight
        for media, weight in weighted(lines(request, hdrs.ACCEPT))
    )


def _single(request: web.Request) -> dict[str, str]:
    """The parameters that come once, as all have to (RFC 6749 3.1)."""
    found: dict[str, str] = {}
    twice = set()
    for name, value in request.rel_url.query.items():
        if name in found:
            twice.add(name)
        found[name] = value
    for name in twice:
        del found[name]
    return found
