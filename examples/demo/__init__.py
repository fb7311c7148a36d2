"""
====
Demo
====

A page on one origin, an API on another, in one process: to try each
middleware with a button, or with ``curl``.

.. code-block:: console

    $ python -m examples.demo           # Ctrl-C stops it
    $ python -m examples.demo --check   # the same, tried by itself

It needs aiohttp-session and itsdangerous, and is better with brotli and zstd;
``make demo`` installs them.

``api``
    The API: all the middlewares, and handlers that need them.
``scenarios``
    What there is to try, and what should come back. To show one thing more,
    add an entry there and a handler to the API.
``page``
    The page. It makes its cards of the scenarios.
``attempt``
    Tries a scenario with a client: for the check, and for the page where no
    page can.
``check``
    Tries all of them and prints a table.
``server``
    Runs the API and the page.
"""
