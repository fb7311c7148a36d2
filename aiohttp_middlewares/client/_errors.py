"""What the errors of the rooms have in common."""

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
