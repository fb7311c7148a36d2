"""Behind which names secrets stand, and a query without them."""

import re
from functools import lru_cache
from urllib.parse import unquote_plus

# The text is in lower case, and "-" stands for all that is no letter and no
# digit, and between the words of a camelCase name.
_SECRET = (
    r"key|token|secret|credential|creds|signature|sig|hmac|jwt|assertion|saml"
    r"|auth|bearer|dpo-?p|cookie|session|sess-?id|csrf|xsrf|otp|code"
    r"|pwd|pswd"
    r"|passw|pass-?(?:word|phrase)|pass(?![a-z])"
    # What is too short to be looked for within other words.
    r"|(?<![a-z])(?:pin|psw|pw|sid|ticket)(?![a-z])"
)

#: Let through on purpose: words in which one of those stands by chance, and
#: names whose values are for everybody.
_HARMLESS = (
    r"authors?(?![a-z])|authority"
    r"|keyboard|keyframe|keywords?|donkey|hockey|monkey|turkey|whiskey"
    r"|(?:idempotency|partition|public|sort)-?key"
    r"|(?:completion|max|prompt|total)-?tokens"
    r"|codec|(?:de|en|geo|uni)code"
    r"|(?:area|bar|city|country|currency|error|exit|lang|language|locale|post"
    r"|postal|reason|region|response|state|status|zip)-?code"
    r"|bypass|compass|footpath|footprint|possession"
    r"|assign|design|insight|signal|signed-?headers"
    r"|sign-?(?:in|out|up)(?![a-z])"
)


def is_secret(name: str) -> bool:
    """Whether the value of a field or parameter of that name is one.

    When in doubt it is: what is struck out too much can be asked for again.
    """
    # An application has few names, and its clients may make up more.
    return _is_known(name) if len(name) <= _LONGEST_KNOWN else _is_secret(name)


def _is_secret(name: str) -> bool:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name)
    text = re.sub(r"[^a-z0-9]+", "-", words.lower())
    harmless = _compiled(_HARMLESS).sub("-", text)
    return _compiled(_SECRET).search(harmless) is not None


#: When the first name is looked at, and once: the cache of ``re`` forgets.
_compiled = lru_cache(re.compile)
_is_known = lru_cache(maxsize=1024)(_is_secret)
_LONGEST_KNOWN = 64


def strike_out(query: str, mark: str, *, show: bool) -> str:
    """A query as it stands in a URL, with ``mark`` in the place of values.

    With ``show`` only what may be secret is struck out: the value of a secret
    name, what has no name, and what has parameters of its own.
    """
    parts = _SEPARATOR.split(query)
    # Every other one is a separator.
    parts[::2] = [part and _strike_out(part, mark, show) for part in parts[::2]]
    return "".join(parts)


_SEPARATOR = re.compile("([&;])")


def _strike_out(part: str, mark: str, show: bool) -> str:
    name, equals, value = part.partition("=")
    if not equals:
        return mark  # it may as well be a value
    if (
        show
        and not is_secret(_decoded(name))
        and not _NESTED.search(_decoded(value))
    ):
        return part
    return f"{name}={mark}"


def _decoded(text: str) -> str:
    # As nearly always there is nothing to decode.
    return unquote_plus(text) if "%" in text or "+" in text else text


# A URL, a query, or something that was encoded twice.
_NESTED = re.compile(r"://|[?=%]")
