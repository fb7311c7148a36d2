"""Print the version of aiohttp that comes next, if it is on PyPI by now.

That is a pre-release which ``aiohttp<4`` admits and which is newer than each
release. (The one alpha of aiohttp 4 there is dates from 2019.)
"""

import json
import subprocess
import sys

report = subprocess.run(
    [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"),
        *("--ignore-installed", "--no-deps", "--pre", "--report", "-"),
        "aiohttp<4",
    ],
    check=True,
    stdout=subprocess.PIPE,
).stdout
version = json.loads(report)["install"][0]["metadata"]["version"]
if not version.replace(".", "").isdecimal() and ".post" not in version:
    print(version)
