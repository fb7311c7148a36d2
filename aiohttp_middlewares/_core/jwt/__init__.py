"""JSON Web Tokens: read, and verified with keys that may be elsewhere.

``compact`` reads and writes the text, ``algorithms`` and ``keys`` are what
joserfc signs and verifies with, ``published`` fetches keys, ``claims`` judges
what a token says, and ``verifier`` is all of it.
"""
