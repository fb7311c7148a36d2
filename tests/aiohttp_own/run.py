"""Run aiohttp's own tests with ours in front of every application.

The tests come with aiohttp's source, of the version that is installed. Each
runs with an empty middleware first. What then comes out otherwise, with one
of ours or with the documented list, is listed in ``differences.py`` with its
reason, or is a fault. So is a line there that is not true any more.

By default the list runs with all tests, and each middleware alone with those
of the server; ``--all`` runs all with all, ``--ours cors,error`` just these.
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias

from differences import DIFFERENCES
from plugin import CLIENT_FILES, CONFIGURATIONS, OTHER_FILES, SERVER_FILES

import aiohttp_middlewares

HERE = Path(__file__).parent
#: By the test and the configuration.
Outcomes: TypeAlias = dict[str, dict[str, str]]
#: How often a test is tried that came out otherwise: some depend on time.
TRIES = 3


def source(folder: Path) -> Path:
    """aiohttp's tests, without its package: the installed one is tested."""
    name = f"aiohttp-{version('aiohttp')}"
    target = folder / name
    if not target.exists():
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "-q", "--no-deps"),
                *("--no-binary", "aiohttp", "-d", str(folder)),
                name.replace("-", "=="),
            ],
            check=True,
        )
        with tarfile.open(folder / f"{name}.tar.gz") as archive:
            archive.extractall(
                folder,
                [
                    member
                    for member in archive.getmembers()
                    if Path(member.name).parts[1:2]
                    in [("tests",), ("pytest.ini",)]
                ],
                filter="data",
            )
    return target


def run(
    target: Path, files: list[str], ours: list[str], *rest: str
) -> Outcomes:
    outcomes = target / "outcomes.json"
    outcomes.unlink(missing_ok=True)
    subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "plugin"),
            # Theirs, but for what measures coverage and time.
            *("-c", "pytest.ini", "-o", "addopts=", "--strict-markers"),
            *("-m", "not dev_mode and not autobahn and not internal"),
            *("-p", "no:cacheprovider", "--tb=no", "--show-capture=no"),
            *("-r", "", "--ours", ",".join(ours), "--outcomes", str(outcomes)),
            *rest,
            *(f"tests/{name}.py" for name in files),
        ],
        check=False,  # what failed is told by the outcomes
        cwd=target,
        env={**os.environ, "PYTHONPATH": str(HERE)},
    )
    if not outcomes.exists():
        sys.exit("pytest did not come to its end")
    found: Outcomes = json.loads(outcomes.read_text())
    return found


def differing(found: Outcomes) -> set[tuple[str, str]]:
    return {
        (test, name)
        for test, outcomes in found.items()
        for name in CONFIGURATIONS
        if name in outcomes and outcomes[name] != outcomes["nothing"]
    }


def explained(test: str, name: str) -> set[int]:
    """The lines of the table that fit."""
    return {
        number
        for number, (patterns, names, _) in enumerate(DIFFERENCES)
        if name in names.split()
        and any(
            fnmatchcase(test.partition("::")[2].partition("[")[0], pattern)
            for pattern in patterns.split()
        )
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--ours", default="")
    parser.add_argument("folder", type=Path)
    options, rest = parser.parse_known_args()
    missing = {
        name
        for name in aiohttp_middlewares.__all__
        if name.endswith("_middleware")
        and name.removesuffix("_middleware") not in CONFIGURATIONS
    }
    if missing:
        sys.exit(f"plugin.py has no configuration of {', '.join(missing)}")
    options.folder.mkdir(exist_ok=True)
    target = source(options.folder.resolve())
    only = target / "only.txt"
    names = options.ours.split(",") if options.ours else [*CONFIGURATIONS]
    names = [name for name in names if name != "nothing"]
    files = [*SERVER_FILES, *CLIENT_FILES]
    if options.all:
        files += OTHER_FILES
    elif options.ours:
        files = [*SERVER_FILES]
    else:
        rest.append("--short")

    found = run(target, files, ["nothing"], *rest)
    only.write_text("\n".join(found))
    for test, outcomes in run(
        target, files, names, "--only", str(only), *rest
    ).items():
        found.setdefault(test, {}).update(outcomes)

    differences = differing(found)
    known = {each: explained(*each) for each in differences if explained(*each)}
    new = differences - known.keys()
    for _ in range(TRIES - 1):
        if not new:
            break
        only.write_text("\n".join({test for test, _ in new}))
        again = run(
            target,
            sorted({Path(test.partition("::")[0]).stem for test, _ in new}),
            ["nothing", *sorted({name for _, name in new})],
            *("--only", str(only), *rest),
        )
        found.update(again)
        new &= differing(again)

    for test, name in sorted(new):
        text = found[test].get(f"{name} text", "").strip()
        print(f"\n==== {test} with {name}: {found[test][name]}\n{text}")
    ran = {name for outcomes in found.values() for name in outcomes}
    stale = [
        f"{patterns} with {name}: {reason}"
        for number, (patterns, listed, reason) in enumerate(DIFFERENCES)
        for name in listed.split()
        if name in ran
        and any(
            number in explained(test, name)
            for test in found
            if name in found[test]
        )
        and not any(
            number in lines
            for (_, other), lines in known.items()
            if other == name
        )
    ]
    for line in stale:
        print(f"\n==== no difference any more: {line}")
    count = sum(
        name in outcomes for outcomes in found.values() for name in names
    )
    failing = sorted(
        test for test in found if found[test]["nothing"] == "failed"
    )
    if failing:
        print(f"\n==== failed without ours, too: {', '.join(failing)}")
    print(
        f"\n{len(found)} tests of aiohttp {version('aiohttp')} passed through "
        f"{len(names)} configurations, {count} times: {len(known)} known "
        f"differences, {len(new)} others, {len(stale)} lines out of date"
    )
    return 1 if new or stale else 0


if __name__ == "__main__":
    sys.exit(main())
