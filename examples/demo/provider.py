"""An OpenID provider on this machine: to sign in without the internet.

It is ``oidc-provider-mock``, which believes everybody, in a process of its own:
``python -m examples.demo.provider`` prints its address, and ends with its
input.
"""

import asyncio
import logging
import sys
import threading
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from subprocess import PIPE
from typing import Any

# Not 127.0.0.1: cookies know no ports, and would be the API's as well.
HOST = "localhost"
#: Those who sign in there with a button.
USERS = {"ada": "Ada Lovelace", "grace": "Grace Hopper"}


@asynccontextmanager
async def provider() -> AsyncIterator[str]:
    """Serve it until the end of the block, and give its address."""
    process = await asyncio.create_subprocess_exec(
        # It uses what is deprecated.
        *(sys.executable, "-W", "ignore", "-m", __name__),
        stdin=PIPE,
        stdout=PIPE,
        start_new_session=True,  # Ctrl-C is for us
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = (await process.stdout.readline()).decode().strip()
        if not address:
            raise RuntimeError("the provider to sign in with does not start")
        yield address
    finally:
        process.stdin.close()
        await process.wait()


def main() -> None:
    with warnings.catch_warnings(record=True):  # whatever the filters are
        import oidc_provider_mock
        from werkzeug.serving import make_server

    # Their lines show the codes of sign-ins.
    for name in ("werkzeug", "oidc_provider_mock"):
        logging.getLogger(name).setLevel(logging.ERROR)
    app = oidc_provider_mock.app(
        user_claims=[
            oidc_provider_mock.User(sub=sub, claims={"name": name})
            for sub, name in USERS.items()
        ]
    )
    app.after_request(_without_network)
    server = make_server(HOST, 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://{HOST}:{server.server_port}", flush=True)
    sys.stdin.read()  # also when the demo is killed


def _without_network(response: Any) -> Any:
    """Have browsers fetch nothing for its pages, which name a style sheet."""
    response.headers["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'unsafe-inline'"
    )
    return response


if __name__ == "__main__":
    main()
