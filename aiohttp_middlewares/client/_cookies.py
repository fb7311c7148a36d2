"""Cookies of an answer that the caller does not get to see."""

from aiohttp import ClientRequest, ClientResponse, hdrs


def keep_cookies(req: ClientRequest, response: ClientResponse) -> None:
    """Store what an answer sets, and send it with the next attempt.

    RFC 6265 5.3: cookies of any answer are stored; aiohttp does so for each
    redirect.
    """
    if not response.cookies:
        return
    jar = req.session.cookie_jar
    jar.update_cookies(response.cookies, response.url)
    sent = (
        pair
        for line in req.headers.getall(hdrs.COOKIE, ())
        for pair in line.split("; ")
    )
    pairs = [
        pair for pair in sent if pair.partition("=")[0] not in response.cookies
    ]
    pairs += [
        morsel.OutputString([])
        for name, morsel in jar.filter_cookies(req.url).items()
        if name in response.cookies
    ]
    req.headers.popall(hdrs.COOKIE, None)
    if pairs:
        req.headers[hdrs.COOKIE] = "; ".join(pairs)
