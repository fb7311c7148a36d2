"""
=========
Constants
=========

The names are upstream's. In the words of RFC 9110 section 9.2 the first are
the *safe* methods; of the others, PUT and DELETE are idempotent as well.
"""

__all__ = ("IDEMPOTENT_METHODS", "NON_IDEMPOTENT_METHODS")

#: The safe methods: a request with one of them asks for no change.
IDEMPOTENT_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE")

#: The methods that change something: what is worth shielding.
NON_IDEMPOTENT_METHODS = ("DELETE", "PATCH", "POST", "PUT")
