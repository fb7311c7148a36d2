"""A real OpenID provider, ``oidc-provider-mock``, in a process of its own.

There its warnings and its records are nobody's business here.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_PROGRAM = """
import json, sys
import oidc_provider_mock, werkzeug.serving
app = oidc_provider_mock.app(**json.loads(sys.argv[1]))
server = werkzeug.serving.make_server("127.0.0.1", 0, app, threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def provider(**options: Any) -> Iterator[str]:
    """Its issuer. The options are those of ``oidc_provider_mock.app``."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", _PROGRAM, json.dumps(options)],
        env={**os.environ, "AUTHLIB_INSECURE_TRANSPORT": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        port = process.stdout.readline().decode().strip()
        assert port, "oidc-provider-mock does not start"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
