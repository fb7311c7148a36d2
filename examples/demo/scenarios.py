"""What there is to try, and what should come back.

One table for all: the page makes a card of each entry, the check tries it
with a client, and the curl lines are made of it.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from examples.demo.api import LIMIT

#: The middlewares in the order of the page, and what each is for.
MIDDLEWARES = {
    "error": "Every exception becomes an answer, made by an error handler of "
    "your choice.",
    "cors": "Tells the browser which pages of other origins may read an "
    "answer, whatever kind of answer it is.",
    "timeout": "Ends a handler that does not begin to answer in time.",
    "shield": "Lets a handler finish what it began, whoever leaves.",
    "https": "Takes the scheme that the visitor sees from the proxy in front.",
}


@dataclass(frozen=True)
class Scenario:
    """One thing to try."""

    middleware: str
    title: str
    #: What is to be seen, in one sentence.
    see: str
    #: The code of the API that does it; a test finds it there. "…" stands for
    #: what is left out.
    code: str
    path: str
    #: What to find in the answer, and what it should be: "status", "body", any
    #: header; "redirect", the first of what was followed; "over the limit",
    #: whether it took longer than a handler may; "preflight" and a header of
    #: that; "ledger", what was written in the end. "*" stands for anything.
    expect: Mapping[str, str]
    method: str = "GET"
    #: The browser of the page sets ``Origin`` by itself. With another origin
    #: than that of the page, the page asks from a frame that has another.
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Ask first, as browsers do when a page uses such a method or header.
    preflight: bool = False
    #: Leave before the answer comes.
    leave: bool = False

    def preflight_headers(self) -> dict[str, str]:
        asked = [name for name in self.headers if name != "Origin"]
        return {
            "Origin": self.headers["Origin"],
            "Access-Control-Request-Method": self.method,
            "Access-Control-Request-Headers": ",".join(asked).lower(),
        }

    def curl(self, api: str) -> str:
        """A line for the shell that does the same."""
        url = api + self.path
        options = ["-i"]
        if "text/event-stream" in self.expect.values():
            options.append("-N")
        if "redirect" in self.expect:
            options += ["-L", "-b", ""]  # go there, with the cookies
        if self.leave:
            options += ["-m", "0.5"]
        lines = [_curl(url, self.method, self.headers, options)]
        if self.preflight:
            first = self.preflight_headers()
            lines.insert(0, _curl(url, "OPTIONS", first, options))
        if "ledger" in self.expect:
            lines.append("sleep 1.5; " + _curl(url))
        return "; echo; ".join(lines)  # not all bodies end in a line break


def _curl(
    url: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    options: list[str] | None = None,
) -> str:
    words = ["curl", *(options or ())]
    if method == "POST":
        words += ["-d", ""]  # not -X, which would stay after a redirect
    elif method != "GET":
        words += ["-X", method]
    for name, value in (headers or {}).items():
        words += ["-H", f"{name}: {value}"]
    return shlex.join([*words, url])


#: What a header is that is not there.
NONE = "(none)"
STRANGER = "https://stranger.example"


def scenarios(page: str) -> list[Scenario]:
    """All there is to try, for a page of that origin."""
    return [
        Scenario(
            "error",
            "An exception as JSON",
            "The handler raises an exception whose class has status = 409, "
            "and the answer has that status and its message.",
            "error_middleware(default_handler=default_error_handler, …)",
            "/errors/json",
            {
                "status": "409",
                "Content-Type": "application/json; charset=utf-8",
                "body": '{"detail": "Only 2 left, and you want 3"}',
            },
        ),
        Scenario(
            "error",
            "The same as problem details",
            "The same exception on another path, answered as RFC 9457 has it.",
            'error_middleware(… "/errors/problem": problem_error_handler …)',
            "/errors/problem",
            {
                "status": "409",
                "Content-Type": "application/problem+json",
                "body": '{*"title": "Conflict", "status": 409, '
                '"detail": "Only 2 left, and you want 3"*}',
            },
        ),
        Scenario(
            "error",
            "A raised answer keeps its headers",
            "The handler raises HTTPTooManyRequests with a Retry-After, which "
            "is still there in the answer.",
            "error_middleware(…)",
            "/errors/busy",
            {
                "status": "429",
                "Retry-After": "30",
                "body": '{"detail": "Come back in half a minute"}',
            },
        ),
        Scenario(
            "error",
            "A redirect keeps its cookie",
            "The login raises a redirect with a cookie, and the account that "
            "it leads to knows the visitor by that cookie.",
            "error_middleware(…)",
            "/login",
            {
                "redirect": "303 /account",
                "status": "200",
                "body": '{"visitor": "42"}',
            },
            method="POST",
        ),
        Scenario(
            "error",
            "A bug as a debug page",
            "A bug in the handler shows its traceback with the source, "
            "as HTML, text or JSON, whichever the client accepts.",
            'error_middleware(… "/errors/debug": debug_error_handler …)',
            "/errors/debug",
            {
                "status": "500",
                "Content-Type": "text/html; charset=utf-8",
                "body": "*ZeroDivisionError*division by zero*",
            },
            headers={"Accept": "text/html"},
        ),
        Scenario(
            "cors",
            "A page that is allowed",
            "The answer names this page as allowed, so the browser hands it "
            "over.",
            "cors_middleware(origins=[page], …)",
            "/hello",
            {
                "status": "200",
                "Access-Control-Allow-Origin": page,
                "Vary": "Origin",
                "body": f'{{"hello": "{page}"}}',
            },
            headers={"Origin": page},
        ),
        Scenario(
            "cors",
            "A page that is not",
            "The same request from a frame of another origin gets an answer "
            "that names nobody, and the browser keeps it from the frame.",
            "cors_middleware(origins=[page], …)",
            "/hello",
            {
                "status": "200",
                "Access-Control-Allow-Origin": NONE,
                "Access-Control-Allow-Credentials": NONE,
                "Vary": "Origin",
            },
            headers={"Origin": STRANGER},
        ),
        Scenario(
            "cors",
            "A request that needs a preflight",
            "DELETE makes the browser ask first, and only as the preflight is "
            "answered does the request itself go out.",
            "cors_middleware(origins=[page], … max_age=600, …)",
            "/notes/1",
            {
                "preflight status": "200",
                "preflight Access-Control-Allow-Origin": page,
                "preflight Access-Control-Allow-Methods": "*DELETE*",
                "preflight Access-Control-Allow-Headers": "*x-requested-with*",
                "preflight Access-Control-Max-Age": "600",
                "status": "200",
                "body": '{"deleted": 1}',
            },
            method="DELETE",
            headers={"Origin": page, "X-Requested-With": "the demo"},
            preflight=True,
        ),
        Scenario(
            "cors",
            "A stream from another origin",
            "The events can be read as they come, though the handler sent the "
            "headers before the middleware saw a response.",
            "cors_middleware(origins=[page], …)",
            "/ticks/3",
            {
                "status": "200",
                "Content-Type": "text/event-stream",
                "Access-Control-Allow-Origin": page,
                "body": "data: 1 of 3*data: 3 of 3*",
            },
            headers={"Origin": page},
        ),
        Scenario(
            "cors",
            "A failure from another origin",
            "The page can read that it was a 500, and what went wrong, where "
            "other stacks leave it with a CORS error.",
            "cors_middleware(origins=[page], …) … error_middleware(…)",
            "/errors/bug",
            {
                "status": "500",
                "Access-Control-Allow-Origin": page,
                "body": '{"detail": "division by zero"}',
            },
            headers={"Origin": page},
        ),
        Scenario(
            "timeout",
            "A handler that takes too long",
            f"The handler would take a minute; after {LIMIT:g} s it is cut, "
            "and the page reads a 504.",
            "timeout_middleware(LIMIT)",
            "/slow",
            {
                "status": "504",
                "over the limit": "yes",
                "Access-Control-Allow-Origin": page,
                "body": '{"detail": "Request timed out"}',
            },
            headers={"Origin": page},
        ),
        Scenario(
            "timeout",
            "A stream that lives on",
            f"The events go on for longer than {LIMIT:g} s, as the limit ends "
            "when the response begins.",
            "timeout_middleware(LIMIT)",
            "/ticks/9",
            {
                "status": "200",
                "Content-Type": "text/event-stream",
                "over the limit": "yes",
                "body": "data: 1 of 9*data: 9 of 9*",
            },
        ),
        Scenario(
            "shield",
            "You leave, the write is finished",
            "The page starts a transfer and leaves after its first stage, as "
            "if you had closed the tab: the second stage is written as well.",
            "shield_middleware(methods=NON_IDEMPOTENT_METHODS, …)",
            "/transfers/shielded",
            {"ledger": "taken from A, given to B"},
            method="POST",
            leave=True,
        ),
        Scenario(
            "shield",
            "The same without a shield",
            "You leave, aiohttp cancels the handler, and the money is gone.",
            'shield_middleware(… ignore=["/transfers/unshielded"], …)',
            "/transfers/unshielded",
            {"ledger": "taken from A, cut off, B gets nothing"},
            method="POST",
            leave=True,
        ),
        Scenario(
            "shield",
            "The limit strikes, the write is finished",
            f"This transfer takes longer than {LIMIT:g} s: the page gets its "
            "504 in time, and the second stage is written all the same.",
            "timeout_middleware(LIMIT), shield_middleware(…) … "
            "app.cleanup_ctx.append(drain_shielded)",
            "/transfers/late",
            {
                "status": "504",
                "body": '{"detail": "Request timed out"}',
                "ledger": "taken from A, given to B",
            },
            method="POST",
        ),
        Scenario(
            "https",
            "Without a proxy",
            "The request came by plain HTTP, and request.url says so.",
            'https_middleware(trusted=["127.0.0.1"])',
            "/scheme",
            {
                "status": "200",
                "body": '{"scheme": "http", "secure": false, "url": "http:*"}',
            },
        ),
        Scenario(
            "https",
            "Behind a proxy that took off the TLS",
            "The same request with X-Forwarded-Proto: https from a trusted "
            "peer: request.scheme and request.url say what the visitor sees.",
            'https_middleware(trusted=["127.0.0.1"])',
            "/scheme",
            {
                "status": "200",
                "body": '{"scheme": "https", "secure": true, "url": "https:*"}',
            },
            headers={"X-Forwarded-Proto": "https"},
        ),
    ]
