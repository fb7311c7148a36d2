"""Measure this package beside upstream's 3.0.0; ``make bench`` runs it.

Both run with the same Python and the same aiohttp, in processes that take
turns. What is printed are medians; with ``--save`` they also become the
tables and the plot of ``docs/why/performance.rst``.
"""

import argparse
import csv
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from cases import BROWSER, CASES, ORIGIN

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs" / "why"

PASS = "an empty pass-through"
#: What is counted under callgrind: each takes minutes.
COUNTED = (
    "cors, no Origin",
    "cors, 1 of 1 origins",
    "timeout",
    "https, no match",
    "shield, match",
    "error, default handler, ValueError",
)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("upstream", help="a Python that has upstream's")
    options.add_argument("--rounds", type=int, default=40)
    options.add_argument("--processes", type=int, default=5)
    options.add_argument("--seconds", type=int, default=4, help="of load")
    options.add_argument("--instructions", action="store_true")
    options.add_argument(
        "--list", action="store_true", help="the documented list, in parts"
    )
    options.add_argument(
        "--public", action="store_true", help="a public API's, in parts"
    )
    options.add_argument(
        "--processor",
        action="store_true",
        help="lists by the least processor time: on a busy machine",
    )
    options.add_argument("--save", action="store_true")
    given = options.parse_args()
    pythons = {"ours": sys.executable, "upstream": given.upstream}
    print(environment(), end="\n\n", flush=True)
    if given.instructions:
        show("instructions", *instructions(pythons))
        return
    if given.list or given.public:
        if shutil.which("wrk") is None:
            print("the lists: not run, as there is no wrk", end="\n\n")
            return
        version = "{}.{}".format(*sys.version_info)
        for name, rows, wanted in (
            ("list", the_list(), given.list),
            ("public", public_api(), given.public),
        ):
            if wanted:
                table = in_parts(
                    rows, given.seconds, given.processes, given.processor
                )
                show(f"the {name}, in parts", *table)
                if given.save:
                    write(f"performance-{name}-{version}.csv", table)
        return
    cases = in_process(pythons, given.rounds, given.processes)
    show("nanoseconds over a bare handler", *cases)
    others = nothing_to_do(given.rounds, given.processes)
    show("the others, nanoseconds over a bare handler", *others)
    servers = whole_servers(pythons, given.seconds, given.processes)
    if servers is not None:
        show("requests per second, as a share of the bare server's", *servers)
    if given.save:
        save(cases, others, servers)


Table = tuple[list[str], list[list[str]]]


# Single middlewares, in process
# ==============================


def in_process(pythons: dict[str, str], rounds: int, processes: int) -> Table:
    found: dict[str, dict[str, list[float]]] = {
        case.name: {who: [] for who in pythons} for case in CASES
    }
    for _ in range(processes):
        for who, python in pythons.items():
            done = worker(python, "--rounds", str(rounds))
            for name, pairs in json.loads(done).items():
                found[name][who].append(
                    median(chain for _, chain in pairs)
                    - median(bare for bare, _ in pairs)
                )
    rows = []
    for name, costs in found.items():
        ours, upstream = (median(costs[who]) for who in pythons)
        spread = (max(costs["ours"]) - min(costs["ours"])) / 2
        rows.append(
            [
                name,
                f"{upstream:,.0f}",
                f"{ours:,.0f}",
                f"{spread:,.0f}",
                "" if "empty" in name else f"{upstream / ours:,.1f}",
            ]
        )
    return ["case", "upstream", "ours", "±", "upstream / ours"], rows


def nothing_to_do(rounds: int, processes: int) -> Table:
    found: dict[str, list[float]] = {}
    for _ in range(processes):
        done = worker(sys.executable, "--others", "--rounds", str(rounds))
        for name, pairs in json.loads(done).items():
            found.setdefault(name, []).append(
                median(chain for _, chain in pairs)
                - median(bare for bare, _ in pairs)
            )
    floor = median(found[PASS])
    rows = [
        [name, f"{median(costs):,.0f}", f"{median(costs) / floor:.1f}"]
        for name, costs in found.items()
    ]
    return ["middleware", "ours", "times an empty one"], rows


def worker(python: str, *arguments: str) -> str:
    return run([python, "-B", str(HERE / "worker.py"), *arguments]).stdout


def run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{command}:\n{done.stderr}")
    return done


# Instructions: the same whatever else the machine does
# =====================================================


def instructions(pythons: dict[str, str]) -> Table:
    rows = []
    floor = {who: counted(python, PASS) for who, python in pythons.items()}
    for name in COUNTED:
        ours, upstream = (
            counted(python, name) - floor[who]
            for who, python in pythons.items()
        )
        rows.append(
            [name, f"{upstream:,.0f}", f"{ours:,.0f}", f"{upstream / ours:.2f}"]
        )
    return ["over a pass-through", "upstream", "ours", "upstream / ours"], rows


def counted(python: str, name: str) -> float:
    """Instructions a request: what more requests take more."""
    few, many = (callgrind(python, name, requests) for requests in (50, 350))
    return (many - few) / 300


def callgrind(python: str, name: str, requests: int) -> int:
    done = run(
        [
            *("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"),
            *(python, "-B", str(HERE / "worker.py")),
            *("--only", name, "--requests", str(requests)),
        ]
    )
    return int(done.stderr.rpartition("Collected : ")[2].split()[0])


# Whole servers under load
# ========================

STACKS = (
    ("bare aiohttp", "ours", "bare"),
    ("five empty pass-throughs", "ours", "five empty"),
    ("ours, all five", "ours", "five"),
    ("upstream's five", "upstream", "five"),
    ("thirteen empty pass-throughs", "ours", "thirteen empty"),
    ("ours, the documented thirteen", "ours", "documented"),
    ("aiohttp-cors alone", "upstream", "aiohttp-cors"),
    ("aiohttp-remotes alone", "upstream", "aiohttp-remotes"),
)
WAYS = ("GET", "GET with CORS", "POST")


def whole_servers(
    pythons: dict[str, str], seconds: int, rounds: int
) -> Table | None:
    if shutil.which("wrk") is None:
        print("whole servers: not run, as there is no wrk", end="\n\n")
        return None
    rates: dict[tuple[str, str], list[float]] = {}
    with spinning():
        for _ in range(rounds):
            for name, who, stack in STACKS:
                with served(pythons[who], stack) as port:
                    load(port, "GET", 1)  # to warm it up
                    for way in WAYS:
                        rate = load(port, way, seconds)
                        rates.setdefault((name, way), []).append(rate)
    bare = {way: median(rates["bare aiohttp", way]) for way in WAYS}
    rows = [
        [
            name,
            *(f"{median(rates[name, way]) / bare[way]:.2f}" for way in WAYS),
            f"{median(rates[name, 'GET']):,.0f}",
        ]
        for name, _, _ in STACKS
    ]
    return ["server", *WAYS, "GET, requests/s"], rows


#: What is measured: its name, the stack and the options of its server, and
#: what is sent.
Row = tuple[str, list[str], dict[str, str]]
PLAIN = {"Host": BROWSER["Host"]}
RICH = {**PLAIN, "Origin": ORIGIN, "Accept-Encoding": "gzip, br"}
#: Those that stand beside the thirteen, each alone.
ALONE = (
    "request id",
    "access log",
    "aiohttp's access log",
    "server timing",
    "metrics",
    "rate limit",
    "idempotency",
)
LISTED = (
    "proxy_headers",
    "trusted_host",
    "https_redirect",
    "security_headers",
    "cors",
    "error",
    "early_data",
    "body_limit",
    "compression",
    "timeout",
    "shield",
    "session",
    "csrf",
)


#: Those of ``cases.public_api()``. The first three count and tell of what
#: there is a package for.
PUBLIC = (
    "access_log",
    "metrics",
    "rate_limit",
    "request_id",
    "proxy_headers",
    "trusted_host",
    "security_headers",
    "cors",
    "error",
    "body_limit",
    "compression",
    "timeout",
    "shield",
    "session",
    "csrf",
)


def public_api() -> list[Row]:
    def but(*names: str) -> list[str]:
        return ["public API", "--without", *names]

    rows: list[Row] = [
        ("bare", ["bare"], PLAIN),
        ("bare, with aiohttp's access log", ["aiohttp's access log"], PLAIN),
        ("the calls of three packages alone", ["packages"], PLAIN),
        ("fifteen empty", ["fifteen empty"], PLAIN),
        ("all fifteen", ["public API"], PLAIN),
    ]
    rows += [(f"all but {name}", but(name), PLAIN) for name in PUBLIC]
    rows += [
        ("all but these two: access_log, metrics", but(*PUBLIC[:2]), PLAIN),
        ("all but these three: and rate_limit", but(*PUBLIC[:3]), PLAIN),
    ]
    return rows


def the_list() -> list[Row]:
    # The bare server of each kind of request comes before what stands on it.
    rows: list[Row] = [
        ("bare", ["bare"], PLAIN),
        ("thirteen empty", ["thirteen empty"], PLAIN),
        ("all thirteen", ["documented"], PLAIN),
        ("the five", ["five"], PLAIN),
    ]
    rows += [
        (f"all but {name}", ["documented", "--without", name], PLAIN)
        for name in LISTED
    ]
    rows += [(name, [name], PLAIN) for name in ALONE]
    rows += [
        ("bare, 10 kB, Origin", ["bare", "--handler=large"], RICH),
        ("all, 10 kB, Origin", ["documented", "--handler=large"], RICH),
    ]
    for handler in ("read", "changed"):
        rows += [
            (
                f"{stack}, {handler}",
                [stack, f"--handler={handler}"],
                PLAIN,
            )
            for stack in ("aiohttp-session", "session", "documented")
        ]
    return rows


def in_parts(
    rows: list[Row], seconds: int, rounds: int, by_processor: bool
) -> Table:
    """Microseconds of a request over that of a bare server, by parts."""
    times: dict[str, list[float]] = {}
    with spinning():
        for _ in range(rounds):
            for name, arguments, fields in rows:
                with serving(sys.executable, *arguments) as (server, port):
                    load(port, "GET", 1, fields)
                    before = processor_time(server.pid)
                    rate = load(port, "GET", seconds, fields)
                    took = 1.0
                    if by_processor:
                        took = processor_time(server.pid) - before
                        took /= seconds
                    times.setdefault(name, []).append(took * 1e6 / rate)
    table = []
    base = whole = 0.0
    # What else runs only ever adds to the processor time.
    average = min if by_processor else median
    for name, _, _ in rows:
        took = average(times[name])
        if name in BASES:
            base = took
        elif name.startswith("all ") and "but" not in name:
            whole = took
        part = f"{whole - took:.1f}" if "all but" in name else ""
        table.append(
            [
                name,
                f"{took:.1f}",
                f"{took - base:.1f}",
                f"{base / took:.2f}",
                part,
            ]
        )
    return ["server", "µs a request", "over its base", "share", "part"], table


#: What the others are compared with, up to the next of these.
BASES = (
    "bare",
    "bare, 10 kB, Origin",
    "aiohttp-session, read",
    "aiohttp-session, changed",
)


def processor_time(pid: int) -> float:
    """Seconds that a process has had until now."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(python: str, *arguments: str) -> Iterator[int]:
    with serving(python, *arguments) as (_, port):
        yield port


@contextmanager
def serving(
    python: str, *arguments: str
) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    server = subprocess.Popen(
        [python, "-B", str(HERE / "server.py"), *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        yield server, int(server.stdout.readline())
    finally:
        server.terminate()
        server.wait()


@contextmanager
def spinning() -> Iterator[None]:
    """Keep the core of wrk awake: else the figures move in steps."""
    code = (
        "import os; os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})\n"
        "os.nice(19)\nwhile True: pass"
    )
    spinner = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield
    finally:
        spinner.kill()
        spinner.wait()


def load(
    port: int, way: str, seconds: int, fields: dict[str, str] = BROWSER
) -> float:
    """Requests per second."""
    fields = dict(fields)
    if way == "GET with CORS":
        fields["Origin"] = ORIGIN
    script = HERE / "post.lua" if way == "POST" else None
    core = str(max(os.sched_getaffinity(0)))
    done = run(
        [
            *("taskset", "-c", core, "wrk", "-t1", "-c16", f"-d{seconds}s"),
            *(f"-H{name}: {value}" for name, value in fields.items()),
            *(() if script is None else ("-s", str(script))),
            f"http://127.0.0.1:{port}/api/items",
        ]
    )
    if "Non-2xx" in done.stdout:
        sys.exit(done.stdout)
    return float(done.stdout.rpartition("Requests/sec:")[2].split()[0])


# What comes of it
# ================


def environment() -> str:
    versions = run(
        [
            sys.executable,
            "-c",
            "import aiohttp, multidict, yarl; print("
            "'aiohttp', aiohttp.__version__, 'multidict',"
            "multidict.__version__, 'yarl', yarl.__version__)",
        ]
    ).stdout.strip()
    return f"Python {platform.python_version()}, {versions}"


def show(title: str, head: list[str], rows: list[list[str]]) -> None:
    table = [head, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    print(title)
    for row in table:
        first, *others = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *others]))
    print(flush=True)


def save(cases: Table, others: Table, servers: Table | None) -> None:
    write("performance-cases.csv", cases)
    write("performance-others.csv", others)
    (DOCS / "performance-versions.txt").write_text(environment() + "\n")
    if servers is not None:
        write("performance-servers.csv", servers)
    plot(cases, DOCS / "performance.svg")


def write(name: str, table: Table) -> None:
    with (DOCS / name).open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([table[0], *table[1]])


def plot(cases: Table, path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    rows = [row for row in cases[1] if row[-1]][::-1]
    ours, upstream = (
        [float(row[column].replace(",", "")) for row in rows]
        for column in (2, 1)
    )
    matplotlib.rcParams["svg.hashsalt"] = "performance"  # the same each time
    figure, axes = pyplot.subplots(figsize=(8, 8), layout="constrained")
    places = range(len(rows))
    axes.barh([at + 0.2 for at in places], upstream, 0.4, label="3.0.0")
    axes.barh([at - 0.2 for at in places], ours, 0.4, label="this package")
    axes.set_yticks(places, [row[0] for row in rows])
    axes.set_xscale("log")
    axes.set_xlabel("nanoseconds over a bare handler (less is better)")
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
