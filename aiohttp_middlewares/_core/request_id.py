"""The id of the request that is being served, where code without it can ask."""

from contextvars import ContextVar

#: None outside of a request, and where no middleware sets an id.
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
