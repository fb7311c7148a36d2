"""A certificate that signs itself, for the tests that need real TLS."""

import ssl
import subprocess
from pathlib import Path
from typing import NamedTuple


class Certificate(NamedTuple):
    chain: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.chain, self.key)
        return context

    def client_context(self) -> ssl.SSLContext:
        """Trust this certificate, and no other."""
        return ssl.create_default_context(cafile=self.chain)


def self_signed(folder: Path, *names: str) -> Certificate:
    """Have ``openssl`` make one; names such as ``DNS:a.example``."""
    made = Certificate(folder / "chain.pem", folder / "key.pem")
    command = "openssl req -x509 -nodes -days 2 -subj /CN=test -newkey ec"
    subprocess.run(
        [
            *command.split(),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-addext", f"subjectAltName={','.join(names)}"),
            *("-keyout", made.key, "-out", made.chain),
        ],
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    return made
