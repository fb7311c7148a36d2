"""Makes what how-to/observability.rst shows, by running its example.

``make record`` writes the files beside the page. With ``record FOLDER`` it
writes what was seen into that folder and draws nothing; with ``draw`` it draws
the trace that is there, the same picture each time.
"""

import asyncio
import csv
import io
import json
import logging
import os
import re
import sys
import textwrap
import types
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient, TestServer, unused_port

from aiohttp_middlewares import (
    access_log_middleware,
    request_id_middleware,
    tracing_middleware,
)

PAGES = Path(__file__).parent / "how-to"
#: What is asked for. The first is shown in detail.
PATHS = ("/items/tea?from=mail", "/items/coffee", "/dump.sql")
#: As the proxy in front of the shop sends them.
HEADERS = {"User-Agent": "Firefox/140.0", "X-Forwarded-For": "203.0.113.7"}


def main() -> None:
    match sys.argv[1:]:
        case []:
            asyncio.run(record(PAGES))
            draw(PAGES)
        case ["record", folder]:
            asyncio.run(record(Path(folder)))
        case ["draw"]:
            draw(PAGES)
        case _:
            sys.exit(__doc__)


# What is seen
# ============


async def record(folder: Path) -> None:
    """Ask the shop, and write down what it answers and shows."""
    port = unused_port()
    os.environ["STOCK"] = f"http://127.0.0.1:{port}"
    os.environ["OTEL_SERVICE_NAME"] = "shop"
    log, records = io.StringIO(), Records()
    with redirect_stderr(log), redirect_stdout(io.StringIO()):
        shop = example()
        shop.set_up()
    logging.getLogger("aiohttp_middlewares.access_log").addHandler(records)
    stock, spans = stock_and_spans()

    servers = TestServer(stock, port=port), TestServer(shop.app)
    for server in servers:
        await server.start_server(access_log=None)
    async with servers[0], TestClient(servers[1]) as client:
        for _ in range(2):  # the first time, much has to be loaded
            records.kept.clear()
            spans.clear()
            log.seek(0)
            log.truncate()
            answers = [
                await client.get(path, headers=HEADERS) for path in PATHS
            ]
        seen = await answer(answers[0])
        metrics = await (await client.get("/metrics")).text()

    facts = next(r for r in records.kept if r["path"] == "/items/tea")
    for name, text in {
        "answer.txt": seen,
        "log.txt": without_frames(log.getvalue()),
        "metrics.txt": some_of(metrics),
        "record.json": json.dumps(facts, indent=4) + "\n",
        "trace.csv": first_trace(spans.get_finished_spans()),
    }.items():
        path = folder / f"observability-{name}"
        path.write_text(text, encoding="utf-8")


def example() -> Any:
    """The first example of the page, as a module."""
    page = (PAGES / "observability.rst").read_text(encoding="utf-8")
    found = re.search(r"code-block:: python\n\n((?: {4}.*\n|\n)+)", page)
    assert found is not None
    module = types.ModuleType("shop")
    exec(textwrap.dedent(found[1]), vars(module))
    return module


def stock_and_spans() -> tuple[web.Application, Any]:
    """The other service, and where the spans of both are kept."""
    # Not before the example is imported: its exporter is to find the standard
    # output that it has there.
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
        InMemorySpanExporter,
    )

    spans = InMemorySpanExporter()
    provider = TracerProvider(
        resource=Resource.create({"service.name": "stock"})
    )
    for each in (provider, trace.get_tracer_provider()):
        assert isinstance(each, TracerProvider)
        each.add_span_processor(SimpleSpanProcessor(spans))

    async def left(request: web.Request) -> web.Response:
        await asyncio.sleep(0.02)
        return web.json_response({"left": 12})

    stock = web.Application(
        middlewares=[
            request_id_middleware(),
            tracing_middleware(tracer_provider=provider),
            access_log_middleware(),
        ]
    )
    stock.router.add_get("/stock/{name}", left)
    return stock, spans


class Records(logging.Handler):
    """Keeps what records have in ``extra``."""

    usual = frozenset({*vars(logging.makeLogRecord({})), "message"})

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        facts = vars(record)
        self.kept.append(
            {name: facts[name] for name in facts if name not in self.usual}
        )


async def answer(response: ClientResponse) -> str:
    names = ("X-Request-ID", "Server-Timing", "Content-Type")
    head = "".join(f"{name}: {response.headers[name]}\n" for name in names)
    return (
        f"HTTP/1.1 {response.status} {response.reason}\n"
        f"{head}\n{await response.text()}\n"
    )


def without_frames(log: str) -> str:
    """A log with tracebacks that are no longer than they have to be."""
    return re.sub(r"^(Traceback .*\n)(?: .*\n)+", r"\1  ...\n", log, flags=re.M)


def some_of(metrics: str) -> str:
    """How many, and how long some of them took."""
    shown = re.compile(
        r"(?:# \w+ )?http_server_requests_total"
        r"|# \w+ http_server_request_duration_seconds "
        r"|\w+_duration_seconds_bucket\{le=\"0.0[257].*items.*200"
    )
    return "".join(
        f"{line}\n" for line in metrics.splitlines() if shown.match(line)
    )


def first_trace(spans: Iterable[Any]) -> str:
    """The trace that began first, as a table; in milliseconds."""
    spans = sorted(spans, key=lambda span: span.start_time)
    root = spans[0]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["service", "span", "kind", "start", "duration"])
    for span in spans:
        if span.context.trace_id == root.context.trace_id:
            times = (
                span.start_time - root.start_time,
                span.end_time - span.start_time,
            )
            table.writerow(
                [
                    span.resource.attributes["service.name"],
                    span.name,
                    span.kind.name,
                    *(f"{time / 1e6:.2f}" for time in times),
                ]
            )
    return text.getvalue()


# The picture
# ===========


def draw(folder: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    with (folder / "observability-trace.csv").open(newline="") as file:
        spans = list(csv.DictReader(file))
    matplotlib.rcParams["svg.fonttype"] = "none"  # letters stay letters
    matplotlib.rcParams["svg.hashsalt"] = "observability"  # the same each time
    figure, axes = pyplot.subplots(figsize=(8, 2.4), layout="constrained")
    for place, span in enumerate(spans):
        start, duration = float(span["start"]), float(span["duration"])
        color = "#1f5fa8" if span["service"] == "shop" else "#a8501f"
        axes.barh(place, duration, 0.6, start, color=color)
        axes.annotate(
            f"{duration:.1f} ms",
            (start, place),
            (4, 0),  # points to the right
            textcoords="offset points",
            color="white",
            va="center",
        )
    names = [f"{span['service']}: {span['span']}" for span in spans]
    axes.set_yticks(range(len(spans)), names)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(folder / "observability-trace.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
