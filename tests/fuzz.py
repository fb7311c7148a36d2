"""Conversations with a hostile client, made of a seed.

Each is a connection on which some requests are pipelined: most of them bad in
one place or more, so that they get far. The same seed and number give the
same bytes, however many conversations there were before.
"""

import gzip
from collections.abc import Callable
from itertools import pairwise
from random import Random
from typing import NamedTuple

import answers

# What is good, so that requests get past the first refusal
# =========================================================

GOOD: dict[str, str] = {
    "Host": "example.com",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-For": "192.0.2.1",
    "Origin": "https://app.example.com",
    "Sec-Fetch-Site": "same-origin",
    "X-API-Key": "secret",
    "Authorization": "Basic bWU6c2VjcmV0",  # me:secret
}

# What is bad
# ===========

#: Values of every header that a middleware reads, or aiohttp on its way to
#: them. A middleware that reads another adds it here.
VALUES: dict[str, list[str]] = {
    "Host": [
        "",
        "evil.example",
        "example.com.",
        "EXAMPLE.com:443",
        "example.com:99999",
        "example.com:x",
        "example.com, evil.example",
        "user@example.com",
        "[::1]",
        "[::g]",
        "[",
        "xn--",
        "xn--zzzzzz.example",
        "a" * 300 + ".example",
        ".".join(["a"] * 200),
        "e\u0301" * 100,
        "\uff45xample.com",
        "%65xample.com",
        "a b",
        "-",
        "..",
    ],
    "X-Request-ID": [
        "",
        "a b",
        "a\tb",
        "x" * 300,
        "é",
        "a,b",
        "\x7f",
        "a:b/c=",
    ],
    "X-Forwarded-Proto": ["http", "HTTPS", "https, http", "wss", ",", "x" * 99],
    "X-Forwarded-For": [
        "unknown",
        "10.0.0.1, " * 50 + "192.0.2.1",
        "192.0.2.1:80",
        "[2001:db8::1]:80",
        "2001:db8::1%eth0",
        "999.1.1.1",
        "," * 500,
        "192.0.2.1, evil",
    ],
    "X-Forwarded-Host": [
        "example.com",
        "evil.example",
        "a, b",
        "[",
        "@",
        "xn--",
    ],
    "X-Forwarded-Port": ["443", "0", "x", "99999"],
    "Forwarded": [
        "proto=https",
        'for="[2001:db8::1]:80";proto="https";host="example.com"',
        'for="2001:db8::1"',
        'for="x, y";proto=https',
        'for="\\',
        "for=192.0.2.1;" * 50,
        ";,;,=",
        "for=_hidden, for=unknown",
        ";" * 500,
        " " * 500 + "=",
    ],
    "Origin": [
        "null",
        "https://evil.example",
        "https://app.example.com:443",
        "https://app.example.com/",
        "HTTPS://APP.EXAMPLE.COM",
        "https://app.example.com, https://evil.example",
        "https://e\u0301" + "\u0301" * 99,
        "https://xn--",
        "https://[::",
        "file://",
        "*",
        "\\",
    ],
    "Sec-Fetch-Mode": ["navigate", "cors", "", "navigate, cors", "é"],
    "Sec-Fetch-Site": [
        "cross-site",
        "none",
        "same-site",
        "x",
        "same-origin, x",
    ],
    "Referer": ["https://app.example.com/x", "https://evil.example", "::"],
    "Access-Control-Request-Method": ["PUT", "GET", "get", "", "X Y", "\u00e9"],
    "Access-Control-Request-Headers": [
        "x-a, authorization",
        "X-A,,b c",
        "," * 500,
        "\u00e9",
        "*",
    ],
    "Authorization": [
        "Basic",
        "Basic !!!",
        "Basic bWU6",
        "Basic bWU6c2VjcmV0=",
        "basic  bWU6c2VjcmV0",
        "Basic 4oCiOuKAog==",
        "Basic /////w==",
        "Basic OjpAOjo6",
        "Basic " + "A" * 4000,
        "Bearer x",
        "Bearer",
        "bearer\t",
        "Bearer a.b.c",
        "Bearer eyJhbGciOiJIUzI1NiJ9.e30.AAAA",
        "Bearer W10.e30.AAAA",
        "Bearer ImFsZyBraWQi.e30.AAAA",
        "Bearer eyJhbGciOm51bGx9.e30.AA",
        "Bearer " + "W1tb" * 1500 + ".e30.AA",
        ",",
    ],
    "X-API-Key": ["", "x", "secret, secret", "a\tb", "\u00e9", "k" * 4000],
    "Early-Data": ["1", "0", "1, 1", "x"],
    "Accept": [
        "text/html",
        "application/problem+json;q=1.000",
        "*/*;q=x",
        "text/*;q=0.5, application/json;q=0.1",
        ";" * 90,
        "; " * 90 + "=",
        " ;" * 90 + '"',
        "a/b," * 200,
        '"' * 500,
    ],
    "Accept-Encoding": [
        "gzip",
        "gzip, deflate, br, zstd",
        "gzip;q=0, *;q=0",
        "*",
        "identity;q=0",
        "gzip;; ; ; ; ; ;=",
        "gzip;" + " ;" * 90 + "=",
        "a," * 400,
        "zstd;q=1.0000",
        "\u00e9",
    ],
    "Cookie": [
        "session=x",
        "session=eyJhIjoxfQ==.aaaaaa.bbbbbbbbbbb",
        "session=; session=x",
        "a(b)=1; session=x",
        'g={"i":0}; session=x',
        "a=b __Host-session=x",
        "\u00a0session=x",
        "session=" + "A" * 5000,
        ";;;=;",
        "a=\u00e9",
    ],
    "Idempotency-Key": [
        "a",
        '"a"',
        '"b"',
        "c, c",
        '"',
        "",
        "a b",
        "a" * 256,
        '"' + "\\" * 300,
        "\u00e9",
    ],
    "If-None-Match": ['"x"', 'W/"x"', "*", '"', ",,", "x"],
    "If-Match": ['"x"', "*", '"'],
    "If-Modified-Since": [answers.LATER, "Sun, 99 Nov 1994 99:99:99 GMT", "x"],
    "If-Range": ['W/"x"', answers.LATER, "x"],
    "Range": ["bytes=1-5", "bytes=9-1", "bytes=-", "x=1-2", "bytes=0-0,2-3"],
    "Content-Type": [
        "application/json",
        "application/json; charset=nonsense",
        "text/plain; charset=utf-8",
        "application/x-www-form-urlencoded",
        "application/x-www-form-urlencoded; charset=utf-16",
        "multipart/form-data; boundary=b",
        "multipart/form-data",
        "multipart/mixed; boundary=" + "b" * 99,
        'multipart/form-data; boundary="',
        "/",
        ";",
    ],
    "Connection": ["keep-alive", "x", "close, x"],
    "TE": ["trailers"],
    "X-Request-Id": ["x", "x" * 999, "a b", "\u00e9"],
    "X-Http-Method-Override": ["DELETE"],
    "traceparent": ["00-" + "0" * 32 + "-" + "0" * 16 + "-00", "x"],
}

#: Any header may have one of these.
PIECES = [
    *("", " ", "\t", ",", ";", "=", '"', "\\", "%", "/", ":", "*", "q=", "a"),
    *("https", "example.com", "gzip", "\u00e9", "\u0301", "\xff", "xn--", "0"),
]

METHODS = [
    *("GET", "GET", "GET", "POST", "POST", "POST", "PUT", "PATCH", "DELETE"),
    *("HEAD", "OPTIONS", "TRACE", "PROPFIND", "M-SEARCH"),
]
PATHS = [kind.path for kind in answers.KINDS]
#: What the application of the test has besides.
READERS = ["/read", "/text", "/json", "/post", "/multipart", "/chunks"]
SLOW = "/slow"
BAD_TARGETS = [
    "*",
    "/static/public/../x",
    "/%2e%2e/returned",
    "/..%2freturned",
    "/./returned",
    "/returned%0A",
    "/returned%00",
    "//returned",
    "/returned/",
    "/returned?" + "a=b&" * 200,
    "/returned;x",
    "/%",
    "/%zz",
    "/%ED%A0%80",
    "/%C3%A9",
    "/\u00e9",
    "/\xff",
    "/returned#x",
    # The addresses of a middleware's own.
    "/-/auth/sign-in",
    "/-/auth/sign-in?next=//evil.example&next=%ED%A0%80",
    "/-/auth/sign-in?next=" + "/%0d%0a" * 200,
    "/-/auth/callback",
    "/-/auth/callback?state=%ED%A0%80&code=%00",
    "/-/auth/callback?error=%3Cscript%3E&error_description=%FF",
    "/-/auth/callback?" + "state&" * 200,
    "/-/auth/logout",
    "/-/auth/signed-out",
    "/" + "a" * 4000,
    "/" + "../" * 500,
    "http://example.com/returned",
    "https://evil.example/returned",
    "http://user:pass@example.com/returned",
    "http://[::1/returned",
    "http://a%/",
    "x://y/z",
    "example.com:443",
    "returned",
    "",
]


def _multipart(random: Random) -> bytes:
    part = random.choice(
        [
            b"",
            b'Content-Disposition: form-data; name="a"\r\n',
            b'Content-Disposition: form-data; name="a"; filename="f"\r\n',
            b"Content-Disposition: ;;=\r\n",
            b"Content-Encoding: gzip\r\n",
            b"Content-Transfer-Encoding: base64\r\n",
            b"Content-Length: 99\r\n",
            b"no header\r\n",
        ]
    )
    end = random.choice([b"--b--\r\n", b"--b", b"", b"--c--\r\n"])
    return b"--b\r\n" + part + b"\r\n" + b"data\xff\r\n" + end


BODIES: list[Callable[[Random], bytes]] = [
    lambda random: b"",
    lambda random: b"body",
    lambda random: b'{"a": 1}',
    lambda random: b'{"a": ',
    lambda random: b"[" * 3000,
    lambda random: b"a=1&b=%zz&%=%",
    lambda random: b"\xff\xfe\x00",
    lambda random: random.randbytes(random.randrange(200)),
    lambda random: b"x" * random.choice([999, 1000, 1001, 3000]),
    lambda random: gzip.compress(b"x" * random.choice([10, 20_000])),
    lambda random: gzip.compress(b"x" * 100)[:-9],
    _multipart,
]

# Requests
# ========


class Request(NamedTuple):
    #: What its answer repeats.
    id: str
    sent: bytes
    method: str


def request(
    random: Random, conversation: int, number: int, *, last: bool
) -> Request:
    """One that is likely to end its connection comes last, mostly."""
    deadly = 0.3 if last else 0.01
    method = random.choice(METHODS)
    if random.random() < deadly / 5:
        method = random.choice(["get", "X", "", "GET\x00"])
    path = random.choice([*PATHS, *READERS])
    if random.random() < 0.02:
        method, path = random.choice(["GET", "POST"]), SLOW
    target = path
    if random.random() < max(deadly, 0.05):
        target = random.choice(BAD_TARGETS)
    if random.random() < 0.02:
        method, target = random.choice(
            [
                ("CONNECT", "example.com:443"),
                ("CONNECT", "/x"),
                ("OPTIONS", "*"),
            ]
        )
    fields = [
        (name, value)
        for name, value in GOOD.items()
        if random.random() > (deadly / 4 if name == "Host" else 0.1)
    ]
    if path == "/websocket" and random.random() < deadly:
        fields += answers.UPGRADE.items()
    bad = random.choice([0, 1, 1, 2, 6])
    for name in random.choices(list(VALUES), k=bad):
        value = random.choice(VALUES[name])
        if random.random() < 0.3:
            value = "".join(random.choices(PIECES, k=random.randrange(9)))
        if random.random() > deadly:  # or else it is said twice
            fields = [pair for pair in fields if pair[0] != name]
        fields.append((name, value))
    coding, body = _body(random, deadly)
    fields += coding
    random.shuffle(fields)
    fields.append(("X-Fuzz", f"{conversation}.{number}"))
    version = "HTTP/1.1"
    if random.random() < deadly / 5:
        version = random.choice(["HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "", "X"])
    lines = [f"{method} {target} {version}"]
    lines += [f"{name}: {value}" for name, value in fields]
    head = "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")
    return Request(f"{conversation}.{number}", head + body, method)


def _body(random: Random, deadly: float) -> tuple[list[tuple[str, str]], bytes]:
    fields: list[tuple[str, str]] = []
    if random.random() < 0.5:
        return fields, b""
    body = random.choice(BODIES)(random)
    if body.startswith(b"\x1f\x8b") or random.random() < 0.05:
        coding = random.choice(["gzip", "gzip", "deflate", "br", "x"])
        fields.append(("Content-Encoding", coding))
    if random.random() < 0.2:
        expect = "x" if random.random() < deadly else "100-continue"
        fields.append(("Expect", expect))
    if random.random() < 0.5:
        wrong = 0 if random.random() > deadly else random.choice([-1, 1, 999])
        length = max(0, len(body) + wrong)
        return [*fields, ("Content-Length", str(length))], body
    fields.append(("Transfer-Encoding", "chunked"))
    half = len(body) // 2
    chunks = [chunk for chunk in (body[:half], body[half:]) if chunk]
    coded = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in chunks)
    end = b"0\r\n\r\n"
    if random.random() < deadly:
        end = random.choice([b"", b"zz\r\n", b"0\r\nX: y\r\n\r\n", b"5\r\nab"])
    return fields, coded + end


class Conversation(NamedTuple):
    number: int
    requests: list[Request]
    #: How it is cut into pieces that are sent one after the other.
    pieces: list[bytes]
    #: Whether the client vanishes when it has sent them: "close" or "reset".
    vanishes: str | None

    @property
    def sent(self) -> bytes:
        return b"".join(self.pieces)


def conversation(seed: int, number: int) -> Conversation:
    random = Random(f"{seed}/{number}")
    size = random.randrange(6)
    requests = [
        request(random, number, position, last=position == size)
        for position in range(size + 1)
    ]
    sent = b"".join(one.sent for one in requests)
    vanishes = None
    if random.random() < 0.15:
        vanishes = random.choice(["close", "reset"])
        sent = sent[: random.randrange(len(sent))]
    cuts = sorted(
        random.randrange(len(sent) + 1) for _ in range(random.choice([0, 0, 2]))
    )
    edges = [0, *cuts, len(sent)]
    pieces = [sent[start:end] for start, end in pairwise(edges) if start < end]
    return Conversation(number, requests, pieces, vanishes)
