"""The algorithms that tokens are signed with: RFC 7518, 8037, 8812, 9864."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiohttp_middlewares._core import options

if TYPE_CHECKING:
    from joserfc.jwa import JWSAlgModel

#: Whoever can verify can sign.
SECRET_KEY_ALGORITHMS = ("HS256", "HS384", "HS512")
PUBLIC_KEY_ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "ES256K",
    "EdDSA",
    "Ed25519",
    "Ed448",
)
_ALL = (*SECRET_KEY_ALGORITHMS, *PUBLIC_KEY_ALGORITHMS)


def joserfc_for(what: str, extra: str) -> Any:
    """The ``jws`` module of joserfc.

    :raises ImportError: it is not installed.
    """
    try:
        from joserfc import jws
    except ImportError as exc:
        raise ImportError(
            f'{what} needs joserfc; pip install "aiohttp-middlewares[{extra}]"'
        ) from exc
    return jws


def algorithms_for(
    what: str, names: object, factory: str, extra: str
) -> Mapping[str, "JWSAlgModel"]:
    """The algorithms of these names, all of secret keys or all of public ones.

    RFC 8725 3.1: a mix would let a public key be used as a secret.
    """
    found = options.strings(what, names)
    if not found:
        options.refuse(ValueError, what, "at least one algorithm", names)
    for name in found:
        if name in _ALL:
            continue
        if name.lower() == "none":
            raise ValueError(
                f"{what} should not have 'none': anybody can write such a token"
            )
        near = options.nearest(name.upper(), _ALL)
        options.refuse(
            ValueError,
            what,
            f"some of {', '.join(_ALL)}",
            name,
            meant=repr(near[0]) if near else None,
        )
    if 0 < sum(name in SECRET_KEY_ALGORITHMS for name in found) < len(found):
        raise ValueError(
            f"{what} should be all of secret keys ({_listed(found, True)}) or "
            f"all of public keys ({_listed(found, False)}): a public key is no "
            "secret"
        )
    # Asked for by name, joserfc warns of EdDSA, with each token.
    known = joserfc_for(factory, extra).JWSRegistry.algorithms
    return {name: known[name] for name in found}


def _listed(names: tuple[str, ...], secret: bool) -> str:
    return ", ".join(
        name for name in names if (name in SECRET_KEY_ALGORITHMS) is secret
    )


def needs_secret(algorithms: Mapping[str, Any]) -> bool:
    return next(iter(algorithms)) in SECRET_KEY_ALGORITHMS
