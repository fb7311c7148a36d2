"""The command: ``python -m examples.demo``."""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from aiohttp_middlewares import RequestIdFilter
from examples.demo.check import check
from examples.demo.scenarios import scenarios
from examples.demo.server import Origins, PortError, running

PAGE_PORT = 8080
API_PORT = 8081


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    # The check provokes errors; what counts is in its table.
    handler = (
        logging.NullHandler() if options.check else logging.StreamHandler()
    )
    handler.addFilter(RequestIdFilter())
    logging.basicConfig(
        format="%(levelname)s %(request_id)s %(name)s: %(message)s",
        level=logging.INFO,
        handlers=[handler],
    )
    try:
        if options.check:
            good = asyncio.run(check(options.port or 0, options.api_port or 0))
            return 0 if good else 1
        asyncio.run(
            serve(
                PAGE_PORT if options.port is None else options.port,
                API_PORT if options.api_port is None else options.api_port,
            )
        )
    except PortError as exc:
        print(
            f"{exc}. Choose others, with make demo "
            'ARGS="--port 9080 --api-port 9081"',
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


async def serve(page_port: int, api_port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop_gracefully() -> None:
        stop.set()
        # The next one does not wait.
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)

    with suppress(NotImplementedError):  # Windows: asyncio.run does its best
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop_gracefully)
    async with running(page_port, api_port) as origins:
        _introduce(origins)
        await stop.wait()
        print("Stopping, as soon as what was begun is done", flush=True)
    print("Stopped", flush=True)


def _introduce(origins: Origins) -> None:
    for scenario in scenarios(origins.page):
        print(f"# {scenario.middleware}: {scenario.title}")
        print(scenario.curl(origins.api), end="\n\n")
    print("Paste these lines into another terminal, or try the page:\n")
    print(f"    {origins.page}/\n")
    print("Ctrl-C stops it.", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.demo",
        description="A page and an API to try each middleware with.",
    )
    parser.add_argument(
        "--port",
        type=port,
        help=f"the port of the page; 0 for any free one (default {PAGE_PORT})",
    )
    parser.add_argument(
        "--api-port",
        type=port,
        help=f"the port of the API; 0 for any free one (default {API_PORT})",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="try everything on free ports, print a table, and exit with 1 "
        "if something is not as it should be",
    )
    return parser


def port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is no port: 0 to 65535")
    return number


if __name__ == "__main__":
    sys.exit(main())
