"""
====
Demo
====

A page on one origin, an API on another, and a provider to sign in with: to try
each middleware with a button, or with ``curl``.

.. code-block:: console

    $ python -m examples.demo           # Ctrl-C stops it
    $ python -m examples.demo --check   # the same, tried by itself

``make demo`` installs what it needs: the dependency group ``demo``.

``api``
    The API: all the middlewares, and handlers that need them.
``scenarios``
    What there is to try, and what should come back. To show one thing more,
    add an entry there and a handler to the API; a middleware more goes into
    ``MIDDLEWARES``, and into one of the ``TASKS``.
``provider``
    Where visitors sign in: an OpenID provider on this machine.
``source``
    The lines of the API that a scenario is about.
``page``
    The page. It makes its cards of the scenarios and their source.
``attempt``
    Tries a scenario with a client: for the check, and for the page where no
    page can.
``check``
    Tries all of them and prints a table.
``server``
    Runs the API, the page and the provider.
"""
