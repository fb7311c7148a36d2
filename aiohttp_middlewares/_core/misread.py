"""What the client sent wrong, found while aiohttp read it."""

from types import FrameType

from aiohttp import BodyPartReader, MultipartReader, web

from aiohttp_middlewares._core.requests import read_so_far

#: What reads a request, or a part of it, when a handler asks for that.
_OF_REQUEST = frozenset(
    (
        *("charset", "content_type", "cookies", "http_range"),
        *("if_modified_since", "if_range", "if_unmodified_since"),
        *("json", "multipart", "post", "read", "text", "url"),
    )
)
_OF_CONTENT = frozenset(("readexactly", "readline", "readuntil"))

#: aiohttp, and what it has cookies and media types read by.
_READERS = ("aiohttp", "email", "http")
#: What these raise themselves for other reasons than what they read.
_OTHERWISE = (AttributeError, MemoryError, OSError, TypeError)

#: Texts that are no JSON, UTF-8, base64, number …, or are nested too deeply,
#: whoever found out: ``request.json()`` takes a parser of any make.
_NO_SUCH_TEXT = (ValueError, RecursionError)


def misread(request: web.Request, err: Exception) -> bool:
    """Whether it was raised while aiohttp read what this request says.

    The traceback tells: it passes through one of aiohttp's readers, and that
    of this very request. The same class of exception, raised by what the
    handler does with something else, is the handler's own error.
    """
    if isinstance(err, web.PayloadAccessError):
        return False  # too late: the request has been answered
    found = False
    module = ""
    traceback = err.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        module = frame.f_globals.get("__name__") or ""
        if _reads(frame, module, request):
            found = True
            if _asks_wrongly(frame, err, request):
                return False
        traceback = traceback.tb_next
    if not found:
        return False
    if isinstance(err, _NO_SUCH_TEXT):
        return True
    if module == "aiohttp.streams":
        # Two tasks that read at once.
        return not isinstance(err, RuntimeError)
    return module.partition(".")[0] in _READERS and not isinstance(
        err, _OTHERWISE
    )


def _reads(frame: FrameType, module: str, request: web.Request) -> bool:
    if module in ("aiohttp.web_request", "aiohttp.helpers"):
        if frame.f_code.co_name not in _OF_REQUEST:
            return False
        owner = frame.f_locals.get("self")
        # All clones of a request share its writer.
        return (
            isinstance(owner, web.BaseRequest)
            and owner.writer is request.writer
        )
    if module == "aiohttp.multipart":
        owner = frame.f_locals.get("self")
        if not isinstance(owner, MultipartReader | BodyPartReader):
            return False
        # Of a request without a body there is nothing else to know it by.
        if getattr(owner, "headers", None) is request.headers:
            return True
        content = getattr(owner, "_content", None)
    elif module == "aiohttp.streams" and frame.f_code.co_name in _OF_CONTENT:
        content = frame.f_locals.get("self")
    else:
        return False
    # All empty bodies are one object, also that of an upstream's answer.
    return content is request.content and (
        request.body_exists or "Content-Length" in request.headers
    )


def _asks_wrongly(
    frame: FrameType, err: Exception, request: web.Request
) -> bool:
    """Whether the handler reads again what it has read, or by its own charset.

    What the client sent may have been good then.
    """
    owner = frame.f_locals.get("self")
    if isinstance(owner, web.BaseRequest):
        empty = read_so_far(owner) == b""
        return empty and owner.content.total_bytes > 0
    if isinstance(owner, MultipartReader):
        return bool(read_so_far(request))
    if isinstance(err, LookupError) and isinstance(owner, BodyPartReader):
        sent = owner.headers.get("Content-Type", "").lower()
        charset = frame.f_locals.get("encoding")
        return isinstance(charset, str) and charset.lower() not in sent
    return False
