"""Whether one of some keys has signed a token: RFC 7515 5.2, RFC 8725 3."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp_middlewares._core.jwt.compact import (
    Signed,
    TokenRefused,
    read,
    read_object,
)

if TYPE_CHECKING:
    from joserfc.jwa import JWSAlgModel
    from joserfc.jwk import Key


class Reader:
    """Reads tokens that are signed by one of these algorithms.

    :param token_type: The ``typ`` that they have to have; None for any.
    """

    def __init__(
        self,
        algorithms: Mapping[str, "JWSAlgModel"],
        token_type: str | None = None,
    ) -> None:
        self._algorithms = algorithms
        self._type = None if token_type is None else _media_type(token_type)

    def opened(self, token: str) -> Signed:
        """A token whose ``alg`` is one of those, and whose ``kid`` is text.

        :raises TokenRefused: it is another.
        """
        signed = read(token)
        header = signed.header
        name = header.get("alg")
        if type(name) is not str or name not in self._algorithms:
            raise TokenRefused("its algorithm is another")
        # RFC 7515 4.1.11: no extension is known here. That of RFC 7797 has to
        # be in it, too.
        if "crit" in header or header.get("b64", True) is not True:
            raise TokenRefused("it takes an extension")
        if self._type is not None:
            given = header.get("typ")
            if type(given) is not str or _media_type(given) != self._type:
                raise TokenRefused("its type is another")
        if type(header.get("kid", "")) is not str:
            raise TokenRefused("its key id is no string")
        return signed

    def claims(self, signed: Signed, keys: Iterable["Key"]) -> dict[str, Any]:
        """What it says, if one of the keys has signed it.

        :raises TokenRefused: none has, or it says nothing.
        """
        algorithm = self._algorithms[signed.header["alg"]]
        for key in keys:
            try:
                good = algorithm.verify(signed.message, signed.signature, key)
            except ValueError:  # a signature that cannot be one
                continue
            if good:
                return read_object(signed.payload)
        raise TokenRefused("its signature is not that of a known key")


def _media_type(name: str) -> str:
    """RFC 7515 4.1.9: in any case, and mostly without ``application/``."""
    return name.lower().removeprefix("application/")
