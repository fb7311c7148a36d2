"""What there is to try, and what should come back.

One table for all: the page makes a card of each entry, the check tries it
with a client, and the curl lines are made of it.
"""

import base64
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from examples.demo.api import LIMIT, token

#: Where the documentation is.
DOCS = "https://aiohttp-middlewares.readthedocs.io/en/latest/"

#: What a visitor of the page may have come for, and the middlewares for it, in
#: the order of the page.
TASKS = {
    "Errors": ["error"],
    "Pages of other origins": ["cors"],
    "Time limits and writes": ["timeout", "shield", "idempotency"],
    "Behind a proxy": [
        "proxy_headers",
        "https",
        "https_redirect",
        "trusted_host",
    ],
    "Security": [
        "security_headers",
        "response_headers",
        "csrf",
        "early_data",
    ],
    "Who is asking": [
        "session",
        "sign_in",
        "basic_auth",
        "bearer_auth",
        "api_key",
    ],
    "Load": ["rate_limit", "concurrency_limit"],
    "Bodies and caches": ["body_limit", "compression", "etag"],
    "Seeing what happens": [
        "request_id",
        "access_log",
        "server_timing",
        "metrics",
        "tracing",
        "report",
    ],
    "Asking other services": ["client"],
}

#: The middlewares, and what each is for.
MIDDLEWARES = {
    "error": "Every exception becomes an answer, made by an error handler of "
    "your choice.",
    "cors": "Tells the browser which pages of other origins may read an "
    "answer, whatever kind of answer it is.",
    "timeout": "Ends a handler that does not begin to answer in time.",
    "shield": "Lets a handler finish what it began, whoever leaves.",
    "https": "Takes the scheme that the visitor sees from the proxy in front.",
    "proxy_headers": "Takes the address, scheme and host of the visitor from "
    "the proxies in front, and from nobody else.",
    "trusted_host": "Answers only requests to hosts of your own.",
    "https_redirect": "Sends visitors who come by plain HTTP to HTTPS.",
    "security_headers": "Sets the headers by which browsers protect visitors, "
    "on every answer.",
    "response_headers": "Sets headers of your own on every answer.",
    "csrf": "Refuses what the pages of other sites make a browser send.",
    "early_data": "Refuses requests that somebody may have recorded and sent "
    "again (RFC 8470).",
    "body_limit": "Refuses bodies that are too large, by what is announced "
    "and by what arrives.",
    "rate_limit": "Lets each client make so many requests in a while.",
    "concurrency_limit": "Works on so many requests at a time, lets some "
    "others wait, and turns the rest away at once.",
    "idempotency": "Does once what a client asks for twice.",
    "basic_auth": "Asks for a login and a password.",
    "bearer_auth": "Asks for an access token; @requires says what a handler "
    "asks of it.",
    "api_key": "Asks for a key in a header, for a few known programs.",
    "compression": "Sends answers with zstd, brotli or gzip, as the client "
    "accepts it.",
    "etag": "Tells a client that has an answer already that it is the same.",
    "session": "Remembers a visitor in a signed cookie; the way to it is "
    "aiohttp-session's.",
    "sign_in": "Has visitors sign in with GitHub or OpenID Connect. The "
    "provider is the demo's own, and believes everybody.",
    "request_id": "Gives every request an id, in its answer and in every line "
    "that is logged for it.",
    "access_log": "Logs each request once, when the last byte of its answer is "
    "out. The terminal where the demo runs has all the lines.",
    "server_timing": "Tells browsers how long the server took, and for what; "
    "their developer tools draw it.",
    "tracing": "Makes a span of each request, with OpenTelemetry, as does the "
    "one for the client: a trace goes on where a service asks another.",
    "metrics": "Counts and times requests for Prometheus.",
    "report": "Tells Sentry, Rollbar, Bugsnag or a function of yours of every "
    "error that nobody expected.",
    "client": "Middlewares for aiohttp.ClientSession. The handlers of these "
    "ask another API, which is the demo itself, and return what was seen on "
    "the wire.",
}


@dataclass(frozen=True)
class Scenario:
    """One thing to try."""

    middleware: str
    title: str
    #: What is to be seen, in one sentence.
    see: str
    #: The code of the API that does it: the page shows it, with the lines
    #: around. "…" stands for what is left out.
    code: str
    path: str
    #: What to find in the answer, and what it should be: "status", "body", any
    #: header; "redirect", the last of what was followed, which no redirect is
    #: whose "Location" is expected; "over the limit",
    #: whether it took longer than a handler may; "preflight" and a header of
    #: that; "ledger", what was written in the end; "statuses" of all answers,
    #: if it asks more than once. "*" stands for anything.
    expect: Mapping[str, str]
    method: str = "GET"
    #: The browser of the page sets ``Origin`` by itself. With another origin
    #: than that of the page, the page asks from a frame that has another.
    headers: Mapping[str, str] = field(default_factory=dict)
    #: The body to send.
    data: str = ""
    #: Ask that many times; what counts is the last answer.
    times: int = 1
    #: No page can send this, or read the answer: have the page's server ask.
    relay: bool = False
    #: Ask first, as browsers do when a page uses such a method or header.
    preflight: bool = False
    #: Leave before the answer comes.
    leave: bool = False
    #: Ask all the times at once; what counts is the answer of the highest
    #: status.
    at_once: bool = False
    #: Sign in by that name at the provider, where it leads.
    sign_in: str = ""
    #: Its page in the docs, if it is not that of the middleware.
    docs: str = ""

    def documentation(self) -> str:
        return f"{DOCS}{self.docs or f'middlewares/{self.middleware}'}.html"

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
        if self.sign_in:
            return _SIGN_IN.format(url=url, name=self.sign_in)
        if self.times > 1:
            # Not all bodies end in a line break.
            options += ["-b", "", "-w", r"\n"]
        if "Content-Encoding" in self.expect:
            options.append("--compressed")
        if self.leave:
            options += ["-m", "0.5"]
        urls = [url] * self.times
        if self.at_once:
            one = _curl([url], self.method, self.headers, options, self.data)
            return " & ".join([one] * self.times) + " & wait"
        lines = [_curl(urls, self.method, self.headers, options, self.data)]
        if self.preflight:
            first = self.preflight_headers()
            lines.insert(0, _curl([url], "OPTIONS", first, options))
        if "ledger" in self.expect:
            lines.append("sleep 1.5; " + _curl([url]))
        return "; echo; ".join(lines)


#: The form of the provider, and what it leads to, in one browser.
_SIGN_IN = (
    "jar=$(mktemp); "
    "form=$(curl -sL -b $jar -c $jar -H 'Accept: text/html' -o /dev/null "
    "-w '%{{url_effective}}' {url}); "
    'curl -iL -b $jar -c $jar -d sub={name} "$form"; rm $jar'
)


def _curl(
    urls: list[str],
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    options: list[str] | None = None,
    data: str = "",
) -> str:
    words = ["curl", *(options or ())]
    if method == "POST":
        words += ["-d", data]  # not -X, which would stay after a redirect
    elif method != "GET":
        words += ["-X", method]
    for name, value in (headers or {}).items():
        words += ["-H", f"{name}: {value}"]
    return shlex.join([*words, *urls])


#: What a header is that is not there.
NONE = "(none)"
STRANGER = "https://stranger.example"
LOGIN = base64.b64encode(b"admin:correct horse").decode()


def scenarios(page: str) -> list[Scenario]:
    """All there is to try, for a page of that origin."""
    reader = token("ada", "invoices:read")
    return [
        Scenario(
            "error",
            "An exception as JSON",
            "The handler raises an exception whose class has status = 409, "
            "and the answer has that status and its message.",
            "error_middleware(default_handler=default_error_handler, …) … "
            "class SoldOut",
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
                "Vary": "Origin*",
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
                "Vary": "Origin*",
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
            "timeout_middleware(LIMIT, …)",
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
            "timeout_middleware(LIMIT, …)",
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
            "shield_middleware(methods=NON_IDEMPOTENT_METHODS, …) … "
            "handler_cancellation=True",
            "/transfers/shielded",
            {"ledger": "taken from A, given to B"},
            method="POST",
            leave=True,
        ),
        Scenario(
            "shield",
            "The same without a shield",
            "You leave, aiohttp cancels the handler, and the money is gone.",
            'shield_middleware(… ignore=["/transfers/unshielded"], …) … '
            "handler_cancellation=True",
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
            "timeout_middleware(LIMIT, …), shield_middleware(…) … "
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
            'https_middleware({"X-Forwarded-Ssl": "on"}, …)',
            "/scheme",
            {
                "status": "200",
                "body": '{"scheme": "http", "secure": false, "url": "http:*"}',
            },
        ),
        Scenario(
            "https",
            "Behind a proxy that took off the TLS",
            "The same request with X-Forwarded-Ssl: on from a trusted "
            "peer: request.scheme and request.url say what the visitor sees.",
            'https_middleware({"X-Forwarded-Ssl": "on"}, …)',
            "/scheme",
            {
                "status": "200",
                "body": '{"scheme": "https", "secure": true, "url": "https:*"}',
            },
            headers={"X-Forwarded-Ssl": "on"},
        ),
        Scenario(
            "proxy_headers",
            "The visitor behind a proxy",
            "The request knows the visitor's address and what was asked for. "
            "The address further left in X-Forwarded-For is made up: no proxy "
            "that is trusted wrote it.",
            'proxy_headers_middleware(trusted=["127.0.0.1", "::1"], host=True)',
            "/visitor",
            {
                "status": "200",
                "body": '{"from": "203.0.113.7", '
                '"to": "https://shop.example.com"}',
            },
            headers={
                "X-Forwarded-For": "192.0.2.66, 203.0.113.7",
                "X-Forwarded-Host": "shop.example.com",
                "X-Forwarded-Proto": "https",
            },
        ),
        Scenario(
            "trusted_host",
            "A host that is not ours",
            "The request names a host of somebody else, as one does who wants "
            "it in the links of a mail or in a cache: 400.",
            'trusted_host_middleware(["127.0.0.1", "::1", …])',
            "/visitor",
            {"status": "400", "body": "Invalid host header"},
            headers={"Host": "evil.example"},
            relay=True,
        ),
        Scenario(
            "https_redirect",
            "By plain HTTP",
            "The checkout is to be had by HTTPS only, and that is where the "
            "visitor is sent. It is not followed here: there is no TLS.",
            'https_redirect_middleware(ignore=all_but("/checkout"))',
            "/checkout",
            {"status": "307", "Location": "https://127.0.0.1/checkout"},
            relay=True,
        ),
        Scenario(
            "https_redirect",
            "By HTTPS, says the proxy",
            "The same request from a proxy that took off the TLS is answered.",
            "proxy_headers_middleware(…) … https_redirect_middleware(…)",
            "/checkout",
            {"status": "200", "body": '{"paid by": "https"}'},
            headers={"X-Forwarded-Proto": "https"},
            relay=True,
        ),
        Scenario(
            "security_headers",
            "A page with a nonce",
            "Only the script that bears the nonce of this answer would run, "
            "and Server tells nobody the version of aiohttp.",
            "security_headers_middleware(… \"'nonce-{nonce}'\" …) … "
            "csp_nonce(request)",
            "/page",
            {
                "status": "200",
                "Content-Security-Policy": "*script-src 'nonce-*'*",
                "Cross-Origin-Opener-Policy": "same-origin",
                "X-Content-Type-Options": "nosniff",
                "X-Frame-Options": "SAMEORIGIN",
                "Referrer-Policy": "no-referrer",
                "Server": NONE,
                "body": '*<script nonce="*">*',
            },
            relay=True,
        ),
        Scenario(
            "response_headers",
            "A stream that no search engine should list",
            "The header is on streams and errors, too.",
            'response_headers_middleware({"X-Robots-Tag": "noindex"})',
            "/ticks/1",
            {"status": "200", "X-Robots-Tag": "noindex"},
        ),
        Scenario(
            "csrf",
            "A form of another site",
            "What a browser sends when a page of a stranger posts a form to "
            "the API, with the cookies of its user: 403.",
            "csrf_middleware(trusted_origins=[page])",
            "/notes",
            {
                "status": "403",
                "body": '{"detail": "Cross-origin request refused"}',
            },
            method="POST",
            headers={"Origin": STRANGER, "Sec-Fetch-Site": "cross-site"},
            data="note=gotcha",
            relay=True,
        ),
        Scenario(
            "csrf",
            "A form of a page that is trusted",
            "The same from this page, whose origin is another one than the "
            "API's as well, but listed.",
            "csrf_middleware(trusted_origins=[page])",
            "/notes",
            {"status": "200", "body": '{"noted": "note=milk"}'},
            method="POST",
            headers={"Origin": page, "Sec-Fetch-Site": "same-site"},
            data="note=milk",
        ),
        Scenario(
            "early_data",
            "A write in early data",
            "The proxy says that the request came before the TLS handshake "
            "was over, as a recording of it may: 425, please send it again.",
            "early_data_middleware()",
            "/notes",
            {
                "status": "425",
                "body": '{"detail": "Too early, please send it again"}',
            },
            method="POST",
            headers={"Early-Data": "1"},
            data="Pay 100",
        ),
        Scenario(
            "body_limit",
            "A note that is too long",
            "Notes have 140 bytes at most. This one is refused by its "
            "Content-Length, before the handler is called.",
            'body_limit_middleware(64 * 1024, limits={"/notes": 140})',
            "/notes",
            {
                "status": "413",
                "body": '{"detail": "The body is larger than 140 bytes"}',
            },
            method="POST",
            data="This note is too long. " * 7,
        ),
        Scenario(
            "body_limit",
            "A label that is too long",
            "It stands around this one handler: labels have 10 bytes.",
            "@with_middlewares(body_limit_middleware(10))",
            "/labels",
            {
                "status": "413",
                "body": '{"detail": "The body is larger than 10 bytes"}',
            },
            method="POST",
            data="a long label",
        ),
        Scenario(
            "rate_limit",
            "One request too many",
            "It asks four times, and three in ten seconds are free. The "
            "answers say what is left, and the last one when to come back.",
            'rate_limit_middleware("3/10 seconds", … urls=["/quotes"])',
            "/quotes",
            {
                "statuses": "*, 429",
                "status": "429",
                "RateLimit-Policy": '"3-per-10-seconds";q=3;w=10',
                "RateLimit": '"3-per-10-seconds";r=0;t=*',
                "Retry-After": "*",
                "body": '{"detail": "*"}',
            },
            times=4,
        ),
        Scenario(
            "concurrency_limit",
            "Four at once, in a kitchen for one",
            "One is worked on and two wait for their turn; the fourth is told "
            "at once to come back.",
            "concurrency_limit_middleware(1, backlog=2, backlog_timeout=3, …)",
            "/kitchen",
            {
                "statuses": "200, 200, 200, 503",
                "status": "503",
                "Retry-After": "*",
                "body": '{"detail": "*"}',
            },
            method="POST",
            times=4,
            at_once=True,
        ),
        Scenario(
            "idempotency",
            "A button pressed twice",
            "The same payment is sent twice with one key. It is made once, and "
            "the second answer is the first again. Try it again: still one.",
            'idempotency_middleware(urls=["/payments"])',
            "/payments",
            {
                "status": "201",
                "Idempotent-Replayed": "true",
                "body": '{"payment": 1, "paid": "100 to Grace"}',
            },
            method="POST",
            headers={"Idempotency-Key": '"8e03978e-40d5-43e8-bc93"'},
            data="100 to Grace",
            times=2,
        ),
        Scenario(
            "basic_auth",
            "Without a login",
            "The answer asks for one; a browser that got it would open a "
            "dialog.",
            'basic_auth_middleware(… ignore=all_but("/admin"), …)',
            "/admin",
            {
                "status": "401",
                "WWW-Authenticate": 'Basic realm="Demo", charset="UTF-8"',
                "body": '{"detail": "A login is needed"}',
            },
            relay=True,
        ),
        Scenario(
            "basic_auth",
            "With login and password",
            "The handler knows who it is.",
            'basic_auth_middleware({"admin": "correct horse"}, …) … '
            "get_user(request)",
            "/admin",
            {"status": "200", "body": '{"user": "admin"}'},
            headers={"Authorization": f"Basic {LOGIN}"},
        ),
        Scenario(
            "bearer_auth",
            "Without a token",
            "The answer asks for one.",
            'bearer_auth_middleware(… ignore=all_but("/invoices"), …)',
            "/invoices",
            {
                "status": "401",
                "WWW-Authenticate": 'Bearer realm="Demo"',
                "body": '{"detail": "*"}',
            },
        ),
        Scenario(
            "bearer_auth",
            "A token that may read",
            "It is a JWT, signed for this API, and the handler knows whose.",
            'jwt_verifier(SECRET, algorithms=["HS256"], …) … '
            '@requires("invoices:read")',
            "/invoices",
            {"status": "200", "body": '{"invoices": [], "for": "ada"}'},
            headers={"Authorization": f"Bearer {reader}"},
        ),
        Scenario(
            "bearer_auth",
            "The same token, to write",
            "This handler requires more than the token is good for: 403, and "
            "what is missing.",
            '@requires("invoices:write")',
            "/invoices",
            {
                "status": "403",
                "WWW-Authenticate": '*error="insufficient_scope"*'
                'scope="invoices:write"*',
                "body": '{"detail": "*"}',
            },
            method="POST",
            headers={"Authorization": f"Bearer {reader}"},
        ),
        Scenario(
            "api_key",
            "A key that is not known",
            "The answer asks for another one.",
            'api_key_middleware(… ignore=all_but("/backups"))',
            "/backups",
            {
                "status": "401",
                "WWW-Authenticate": 'ApiKey realm="Demo"',
                "body": '{"detail": "*"}',
            },
            headers={"X-API-Key": "made-up"},
        ),
        Scenario(
            "api_key",
            "The key of a nightly job",
            "The handler knows which program it is, and that it may do this.",
            'api_key_middleware(API_KEYS.get, …) … @requires("backup")',
            "/backups",
            {"status": "200", "body": '{"backups": [], "for": "nightly job"}'},
            headers={"X-API-Key": "a-long-key"},
        ),
        Scenario(
            "compression",
            "A long answer",
            "22 kB of text go over the wire as less than 200 bytes, in the "
            "encoding that your browser likes best.",
            "compression_middleware(…)",
            "/novel",
            {
                "status": "200",
                "Content-Encoding": "*",
                "Content-Length": "*",
                "Vary": "*Accept-Encoding*",
                "body": "All work and no play*",
            },
        ),
        Scenario(
            "compression",
            "A stream",
            "It is compressed, and each event can be read when it is sent.",
            'compression_middleware(… "text/event-stream" …)',
            "/ticks/4",
            {
                "status": "200",
                "Content-Type": "text/event-stream",
                "Content-Encoding": "*",
                "body": "data: 1 of 4*data: 4 of 4*",
            },
        ),
        Scenario(
            "etag",
            "The same as before",
            "The browser has this answer already, and says which: it is told "
            "so, and nothing is sent again.",
            'etag_middleware() … web.json_response({"apples": 3})',
            "/stock",
            {"status": "304", "body": ""},
            headers={"If-None-Match": 'W/"0a267b966616857847fdbc74a5ac0f2b"'},
        ),
        Scenario(
            "session",
            "A login that ends in a redirect",
            "The handler stores the name in the session and raises a redirect; "
            "the session is saved all the same, and known where it leads to.",
            "session_middleware(secrets.token_urlsafe(32)) … "
            "new_session(request) … raise web.HTTPSeeOther",
            "/session",
            {
                "redirect": "303 /session",
                "status": "200",
                "body": '{"name": "Ada"}',
            },
            method="POST",
        ),
        Scenario(
            "session",
            "A counter",
            "It asks twice, and the session counts. Try it again to count on.",
            'session["visits"] = session.get("visits", 0) + 1',
            "/visits",
            {"status": "200", "body": '{"first": false, "visits": *}'},
            times=2,
        ),
        Scenario(
            "sign_in",
            "A page for members",
            "Whoever is unknown goes to the provider, signs in there, and "
            "comes back to the page. Try does it as Ada; the link leaves it "
            "to you, in a tab of its own.",
            "sign_in_middleware(openid_connect(issuer, …), …) … "
            "get_claims(request)",
            "/members",
            {
                "redirect": "303 /members",
                "status": "200",
                "body": "*<h1>Welcome, Ada Lovelace</h1>*",
            },
            headers={"Accept": "text/html"},
            relay=True,
            sign_in="ada",
        ),
        Scenario(
            "request_id",
            "An id for each request",
            "The answer has it, and so has the line in the terminal where the "
            "demo runs.",
            "request_id_middleware() … get_request_id()",
            "/id",
            {
                "status": "200",
                "X-Request-ID": "*",
                "body": '{"request": "*"}',
            },
        ),
        Scenario(
            "request_id",
            "The id of the proxy in front",
            "The request bears one, and keeps it.",
            "request_id_middleware() … get_request_id()",
            "/id",
            {
                "status": "200",
                "X-Request-ID": "from-the-proxy-1",
                "body": '{"request": "from-the-proxy-1"}',
            },
            headers={"X-Request-ID": "from-the-proxy-1"},
        ),
        Scenario(
            "access_log",
            "A line for each request",
            "The line of this request, once the answer is out: method, path, "
            "status, bytes and seconds. Its record knows more.",
            "access_log_middleware(…)",
            "/log",
            {"status": "200", "ledger": "POST /log 200 35 B 0.* s"},
            method="POST",
        ),
        Scenario(
            "server_timing",
            "What took so long",
            "The handler measures the database; the time until the answer "
            "began is there anyway.",
            "server_timing_middleware() … "
            'timing.measure("db", "what is in it")',
            "/basket",
            {
                "status": "200",
                "Server-Timing": 'total;dur=*, db;dur=*;desc="what is in it", '
                'cache;desc="miss"',
            },
        ),
        Scenario(
            "tracing",
            "One trace over two services",
            "The handler asks another API, which fails once. Here are all the "
            "spans: of the server, of each attempt, and of the other API.",
            "tracing_middleware(tracer_provider=tracing, …) … "
            "client_tracing_middleware(tracer_provider=app[TRACING])",
            "/client/trace",
            {
                "status": "200",
                "body": '{"stock": 7}',
                "ledger": "POST /client/trace 200, "
                "> GET 503, > > GET /partner/stock 503, "
                "> GET 200, > > GET /partner/stock 200",
            },
            method="POST",
        ),
        Scenario(
            "metrics",
            "What Prometheus reads",
            "It asks twice, and the second answer counts the first. Routes are "
            "named, never paths: nobody can make up a series.",
            "metrics_middleware(registry=registry) … "
            'app.router.add_get("/metrics", metrics_handler(registry))',
            "/metrics?name%5B%5D=http_server_requests_total",
            {
                "status": "200",
                "Content-Type": "text/plain*",
                "body": "*http_server_requests_total{"
                'method="GET",route="/metrics",status="200"} *',
            },
            times=2,
        ),
        Scenario(
            "report",
            "A bug that somebody hears of",
            "The page gets its 500, and a function of ours the exception, with "
            "the request and its id.",
            "report_middleware(report) … def report(err: BaseException, "
            "request: web.Request)",
            "/reports",
            {
                "status": "500",
                "body": '{"detail": "list index out of range"}',
                "ledger": "IndexError('list index out of range') "
                "in POST /reports, report-1",
            },
            method="POST",
            headers={"X-Request-ID": "report-1"},
        ),
        Scenario(
            "client",
            "An API that fails twice",
            "retry_middleware asks again after each 503 and a short random "
            "delay, and the handler gets the answer of the third attempt.",
            "retry_middleware(base_delay=0.05, on_retry=partner.on_retry)",
            "/client/stock",
            {
                "status": "200",
                "body": '{"stock": 7, "seen": ["POST /partner/token: 200", '
                '"GET /partner/stock with token-1: 503", '
                '"RetryEvent: attempt 1 *", '
                '"GET /partner/stock with token-1: 503", '
                '"RetryEvent: attempt 2 *", '
                '"GET /partner/stock with token-1: 200"]}',
            },
            docs="client/retry",
        ),
        Scenario(
            "client",
            "A token that is revoked halfway",
            "BearerTokenMiddleware fetches a token first, and another one when "
            "the API refuses it; the handler only asks for two pages.",
            "BearerTokenMiddleware(client_credentials(…), …)",
            "/client/orders",
            {
                "status": "200",
                "body": '{"orders": 4, '
                '"seen": ["POST /partner/token: 200", '
                '"GET /partner/orders/1 with token-1: 200", '
                '"the partner revokes token-1", '
                '"GET /partner/orders/2 with token-1: 401", '
                '"POST /partner/token: 200", '
                '"GET /partner/orders/2 with token-2: 200"]}',
            },
            docs="client/bearer_token",
        ),
    ]
