"""What docs/how-to/observability.rst shows is what its example does."""

import csv
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def seen(folder: Path) -> dict[str, str]:
    """What is in the files, but for ids and figures."""
    return {
        path.name: re.sub(
            r"\b[0-9a-f]{32}\b|\d+\.\d+", "N", path.read_text("utf-8")
        )
        for path in folder.glob("observability-*")
        if path.suffix != ".svg"
    }


def test_page_shows_what_its_example_does(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, DOCS / "observability.py", "record", tmp_path],
        capture_output=True,
        check=False,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert len(seen(tmp_path)) == 5
    assert seen(tmp_path) == seen(DOCS / "how-to")


def test_picture_is_of_the_trace_beside_it() -> None:
    picture = (DOCS / "how-to/observability-trace.svg").read_text("utf-8")
    with (DOCS / "how-to/observability-trace.csv").open(newline="") as file:
        spans = list(csv.DictReader(file))
    assert len(spans) == 4
    for span in spans:
        assert f">{span['service']}: {span['span']}<" in picture
        assert f">{float(span['duration']):.1f} ms<" in picture
