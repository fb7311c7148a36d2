"""What the errors of the rooms have in common."""

import asyncio

import aiohttp


class FinalError(aiohttp.ClientError):
    """A refusal that sending the request again cannot change.

    It is no :class:`aiohttp.ClientConnectionError`: nothing that repeats
    requests after a failed connection may repeat this one.
    """


def caused_by(
    error: BaseException | None, kind: type[BaseException]
) -> BaseException | None:
    """The first ``kind`` among an error, its cause, and so on."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__
    return error


def is_of_own_body(error: BaseException | None) -> bool:
    """Whether the body could not be read, rather than written.

    aiohttp says that the connection broke either way. The cause tells: it
    comes from a generator or a file of the caller's, and not from the wire.
    """
    if not isinstance(error, aiohttp.ClientConnectionError) or isinstance(
        error, aiohttp.ClientConnectorError
    ):
        return False
    cause = error.__cause__
    return (
        cause is not None
        and not isinstance(
            cause, ConnectionError | asyncio.TimeoutError | aiohttp.ClientError
        )
        # What a transport ended with, such as EHOSTUNREACH, keeps its words.
        and cause.args != error.args
    )
