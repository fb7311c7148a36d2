"""nginx as people put it in front of aiohttp, one for each test or several."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest
from aiohttp import ClientSession, TCPConnector
from certificates import Certificate, self_signed
from yarl import URL

#: The commands that are needed; Debian's packages have the same names.
NEEDED = ("nginx", "openssl")

CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/client;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    client_max_body_size 64m;
    ssl_certificate {certificate.chain};
    ssl_certificate_key {certificate.key};

    # What the documentation of nginx says for upstreams that are kept alive,
    # and for WebSockets.
    map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
    upstream behind {{ server {address}; keepalive 4; }}
    proxy_http_version 1.1;

    server {{
        listen 127.0.0.1:{https} ssl;
        listen 127.0.0.1:{http};
        location / {{
            proxy_pass {scheme}://behind;
            {headers}
            {options}
        }}
    }}
}}
"""

#: What it tells the application.
HEADERS = {
    "Connection": "$connection_upgrade",
    "Host": "$http_host",
    "Upgrade": "$http_upgrade",
    "X-Forwarded-For": "$proxy_add_x_forwarded_for",
    "X-Forwarded-Proto": "$scheme",
}


class Front(NamedTuple):
    """Where visitors come in."""

    https: URL
    http: URL


class Nginx(Protocol):
    def __call__(
        self,
        behind: URL | Path,
        *,
        headers: Mapping[str, str] = ...,
        options: str = ...,
    ) -> Awaitable[Front]: ...


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        pytest.skip(
            f"no {' and no '.join(missing)} on PATH: "
            f"apt-get install {' '.join(missing)}"
        )
    return self_signed(tmp_path_factory.mktemp("tls"), "IP:127.0.0.1")


@pytest.fixture
async def visitor(certificate: Certificate) -> AsyncIterator[ClientSession]:
    """A client that trusts the certificate."""
    connector = TCPConnector(ssl=certificate.client_context())
    async with ClientSession(connector=connector) as session:
        yield session


@pytest.fixture
async def nginx(
    certificate: Certificate, tmp_path: Path
) -> AsyncIterator[Nginx]:
    """Start nginx before a server, or a unix socket, or another nginx."""
    processes: list[asyncio.subprocess.Process] = []

    async def start(
        behind: URL | Path,
        *,
        headers: Mapping[str, str] = HEADERS,
        options: str = "",
    ) -> Front:
        folder = tmp_path / f"nginx-{len(processes)}"
        folder.mkdir()
        ports = free_ports()
        config = folder / "nginx.conf"
        config.write_text(
            CONFIG.format(
                folder=folder,
                certificate=certificate,
                address=f"{behind.host}:{behind.port}"
                if isinstance(behind, URL)
                else f"unix:{behind}",
                scheme=behind.scheme if isinstance(behind, URL) else "http",
                https=ports[0],
                http=ports[1],
                headers="\n".join(
                    f"proxy_set_header {name} {value};"
                    for name, value in headers.items()
                ),
                options=options,
            ),
            encoding="ascii",
        )
        process = await asyncio.create_subprocess_exec(
            *("nginx", "-p", folder, "-c", config, "-e", folder / "error.log"),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        processes.append(process)
        for port in ports:
            await listening(port, process)
        return Front(
            URL.build(scheme="https", host="127.0.0.1", port=ports[0]),
            URL.build(scheme="http", host="127.0.0.1", port=ports[1]),
        )

    yield start
    for process in processes:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def free_ports() -> tuple[int, int]:
    """Two that nobody listens at, just now."""
    with closing(socket.socket()) as one, closing(socket.socket()) as two:
        for each in (one, two):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


async def listening(port: int, process: asyncio.subprocess.Process) -> None:
    """Wait until the process does."""
    while True:
        assert process.returncode is None, "nginx ended: see its error.log"
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.005)
        else:
            writer.close()
            await writer.wait_closed()
            return
