"""What all tests share."""

import gc
import shutil
import socket
import subprocess
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from discreet import nothing_is_shown as nothing_is_shown
from hypothesis import given, settings
from hypothesis.strategies import none
from loopback import nothing_leaves as nothing_leaves

# A machine that others use as well is now and then slow.
settings.register_profile("suite", settings(deadline=None))
settings.load_profile("suite")


def pytest_collection_finish() -> None:
    """Leave what was imported out of every garbage collection from now on."""
    # Hypothesis asks the collector who holds its Random when it is first used.
    given(none())(lambda nothing: None)()
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[
    None, pytest.TestReport, pytest.TestReport
]:
    """Let ``pytest -n`` send what was logged, half a character or not."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode())
        for name, text in report.sections
    ]
    return report


class RedisServer:
    """A Redis of the tests' own, which forgets all when it stops."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program = program
        self.folder = folder
        self.socket = folder / "redis.sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {
            "--port": "0",  # no TCP: nobody else can get in the way
            "--unixsocket": str(self.socket),
            "--save": "",
            "--appendonly": "no",
            "--dir": str(self.folder),
            "--logfile": str(self.folder / "redis.log"),
        }
        self.process = subprocess.Popen(
            [self.program, *(part for pair in options.items() for part in pair)]
        )
        deadline = time.monotonic() + 10
        while not self.answers():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise RuntimeError("redis-server does not start")
            time.sleep(0.005)

    def answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(str(self.socket)) == 0

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
            self.socket.unlink(missing_ok=True)


@pytest.fixture
def redis_server(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[RedisServer]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed: apt-get install it")
    # The path of a socket has to be short.
    server = RedisServer(program, tmp_path_factory.mktemp("r"))
    server.start()
    try:
        yield server
    finally:
        server.stop()
