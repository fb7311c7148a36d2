"""Keys, each with the algorithms that it is for."""

import logging
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp_middlewares._core import logs
from aiohttp_middlewares._core.jwt.algorithms import needs_secret

if TYPE_CHECKING:
    from joserfc.jwa import JWSAlgModel
    from joserfc.jwk import Key

#: RFC 7518 3.2, for HS256; bytes.
_SHORT = 32

logger: logging.Logger = logs.get_logger("aiohttp_middlewares.jwt")


class KeySource(Protocol):
    """Where a verifier has its keys from."""

    def find(self, algorithm: str, kid: str | None) -> Sequence["Key"]:
        """Those at hand that may have signed a token."""
        ...

    async def fetch(self, algorithm: str, kid: str | None) -> Sequence["Key"]:
        """The same, where there was none, and where there may be others."""
        ...


class Keys:
    """Some keys, which stay as they are."""

    def __init__(
        self, keys: Iterable["Key"], algorithms: Mapping[str, "JWSAlgModel"]
    ) -> None:
        self._all: dict[str, list[Key]] = {name: [] for name in algorithms}
        self._named: dict[tuple[str, str], list[Key]] = defaultdict(list)
        self._nameless: dict[str, list[Key]] = defaultdict(list)
        for key in keys:
            for name, algorithm in algorithms.items():
                if not _fits(key, algorithm):
                    continue
                self._all[name].append(key)
                kid = key.kid
                if kid is None:
                    self._nameless[name].append(key)
                else:
                    self._named[name, kid].append(key)

    def __bool__(self) -> bool:
        return any(self._all.values())

    def find(self, algorithm: str, kid: str | None) -> Sequence["Key"]:
        """RFC 8725 3.10: a ``kid`` is the sender's text. It is looked up."""
        if kid is None:
            return self._all[algorithm]
        named = self._named.get((algorithm, kid))
        return self._nameless.get(algorithm, ()) if named is None else named

    async def fetch(self, algorithm: str, kid: str | None) -> Sequence["Key"]:
        return ()


def _fits(key: "Key", algorithm: "JWSAlgModel") -> bool:
    """Whether key and algorithm are for each other.

    By their kind and curve, and by what the key itself says of its use
    (RFC 8725 3.1; RFC 7517 4.2, 4.3, 4.4).
    """
    from joserfc.errors import JoseError

    try:
        algorithm.check_key(key)
        key.check_key_op("verify")
        if algorithm.name != "EdDSA":
            return True
        # The one name that goes with several curves, not all of which sign.
        return getattr(key, "curve_name", None) in ("Ed25519", "Ed448")
    except (JoseError, KeyError):  # the latter for curves without a name there
        return False


def given_keys(
    what: str, value: object, algorithms: Mapping[str, "JWSAlgModel"]
) -> list["Key"]:
    """The keys of an option: a secret, a PEM, a JWK or a set of those.

    Only those that are for one of the algorithms; none at all is an error. No
    error shows what may be a key.
    """
    if isinstance(value, Mapping):
        found = _documented(what, value)
    elif isinstance(value, str | bytes):
        text = value.encode() if isinstance(value, str) else value
        found = [
            _secret(what, text)
            if needs_secret(algorithms)
            else _in_pem(what, text)
        ]
    else:
        raise TypeError(
            f"{what} should be a secret, a PEM, a JWK or a JWK set, got a "
            f"{type(value).__name__}"
        )
    fitting = [
        key
        for key in found
        if any(_fits(key, algorithm) for algorithm in algorithms.values())
    ]
    if not fitting:
        raise ValueError(
            f"{what} should be for one of the algorithms "
            f"{', '.join(algorithms)}, by its kind, its curve, and its alg, "
            "use and key_ops"
        )
    for key in fitting:
        if isinstance(key.raw_value, bytes) and len(key.raw_value) < _SHORT:
            logger.warning(
                "A secret of less than %s bytes is too short for tokens: take "
                "one of secrets.token_urlsafe()",
                _SHORT,
            )
    return fitting


def published_keys(document: object) -> list["Key"]:
    """Those of a JWK set that can be used; others are left out.

    RFC 7517 5: as there may be kinds that are not known here.
    """
    members = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(members, list):
        return []
    found = []
    for member in members[:_MOST_PUBLISHED]:
        try:
            found.append(_imported(member))
        except Exception:
            # joserfc and cryptography have half a dozen kinds for what they
            # cannot read, or should not be used.
            continue
    return found


#: Issuers have some.
_MOST_PUBLISHED = 100


def _documented(what: str, value: Mapping[Any, Any]) -> list["Key"]:
    members = value.get("keys", [value])
    if not isinstance(members, list | tuple) or not members:
        raise ValueError(f"{what} should be a JWK or a JWK set")
    try:
        return [_imported(member) for member in members]
    except Exception:
        raise ValueError(
            f"{what} should be JWKs that joserfc knows, complete and strong: "
            "those of RSA of 2048 bits or more"
        ) from None


def _imported(member: Any) -> "Key":
    from joserfc.errors import SecurityWarning
    from joserfc.jwk import import_key

    with warnings.catch_warnings():
        # What joserfc warns of can be broken.
        warnings.simplefilter("error", SecurityWarning)
        return import_key(dict(member))


def _secret(what: str, secret: bytes) -> "Key":
    from joserfc.errors import SecurityWarning
    from joserfc.jwk import OctKey

    if not secret.strip():
        raise ValueError(f"{what} should be a secret, got an empty one")
    if b"-----BEGIN " in secret:
        raise ValueError(
            f"{what} should be a secret for these algorithms: a PEM, which "
            "others have as well, is none"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)  # given_keys() does
        try:
            key: Key = OctKey.import_key(secret)
        except ValueError:  # a public key in another form
            raise ValueError(f"{what} should be a secret") from None
    return key


def _in_pem(what: str, pem: bytes) -> "Key":
    from joserfc.errors import SecurityWarning
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    should = f"{what} should be a PEM for these algorithms"
    if b"-----BEGIN " not in pem:
        raise ValueError(f"{should}, or a JWK, a JWK set or the URL of one")
    for kind in (RSAKey, ECKey, OKPKey):
        with warnings.catch_warnings():
            warnings.simplefilter("error", SecurityWarning)
            try:
                key: Key = kind.import_key(pem)
            except SecurityWarning:
                break  # RFC 7518 3.3
            except Exception:
                continue  # another kind; or what cryptography cannot read
            return key
    raise ValueError(
        f"{should}: of RSA of 2048 bits or more, EC or OKP, not encrypted"
    )
