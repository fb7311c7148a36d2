"""Try a scenario with a client."""

import asyncio
import re
import time

from aiohttp import (
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    CookieJar,
)

from examples.demo.api import LIMIT
from examples.demo.scenarios import NONE, Scenario

#: For how many seconds each scenario may be tried.
PATIENCE = 5


async def attempt(api: str, scenario: Scenario) -> dict[str, str]:
    """The facts of what a scenario expects, as they are."""
    try:
        async with ClientSession(
            api,
            cookie_jar=CookieJar(unsafe=True),  # "unsafe": also from 127.0.0.1
            timeout=ClientTimeout(total=PATIENCE),
        ) as client:
            return await _attempt(client, scenario)
    except (ClientError, asyncio.TimeoutError) as exc:
        return dict.fromkeys(scenario.expect, f"{type(exc).__name__}: {exc}")


def fits(expected: str, got: str) -> bool:
    """Whether it is the same; "*" stands for anything that is there."""
    if NONE in (expected, got):
        return expected == got
    pattern = re.escape(expected).replace(r"\*", ".*")
    return re.fullmatch(pattern, got, re.DOTALL) is not None


async def _attempt(client: ClientSession, scenario: Scenario) -> dict[str, str]:
    got = await _preflight(client, scenario) if scenario.preflight else {}
    if scenario.leave:
        await _leave(client, scenario)
    else:
        got |= await _ask_all(client, scenario)
    if "ledger" in scenario.expect:
        got["ledger"] = await _ledger(client, scenario, over=True)
    return got


async def _preflight(
    client: ClientSession, scenario: Scenario
) -> dict[str, str]:
    async with client.options(
        scenario.path, headers=scenario.preflight_headers()
    ) as response:
        facts = await _facts(response, scenario)
    return {f"preflight {name}": fact for name, fact in facts.items()}


async def _ask_all(client: ClientSession, scenario: Scenario) -> dict[str, str]:
    if scenario.at_once:
        asks = (_ask(client, scenario) for _ in range(scenario.times))
        answers = await asyncio.gather(*asks)
        answers.sort(key=lambda facts: facts["status"])
    else:
        answers = [await _ask(client, scenario) for _ in range(scenario.times)]
    statuses = ", ".join(facts["status"] for facts in answers)
    return answers[-1] | {"statuses": statuses}


async def _ask(client: ClientSession, scenario: Scenario) -> dict[str, str]:
    start = time.monotonic()
    async with client.request(
        scenario.method,
        scenario.path,
        headers=scenario.headers,
        data=scenario.data or None,
        allow_redirects="Location" not in scenario.expect,
    ) as response:
        facts = await _facts(response, scenario)
        form = response.url
    if scenario.sign_in:
        async with client.post(form, data={"sub": scenario.sign_in}) as there:
            facts = await _facts(there, scenario)
    over = time.monotonic() - start > LIMIT
    return facts | {"over the limit": "yes" if over else "no"}


async def _facts(
    response: ClientResponse, scenario: Scenario
) -> dict[str, str]:
    facts = {
        # All lines of a header: one that is doubled shows.
        name: ", ".join(response.headers.getall(name))
        for name in response.headers
    }
    for redirect in response.history:
        facts["redirect"] = f"{redirect.status} {redirect.headers['Location']}"
    facts["status"] = str(response.status)
    facts["reason"] = response.reason or ""
    facts["body"] = await response.text()
    return facts


async def _leave(client: ClientSession, scenario: Scenario) -> None:
    leaving = asyncio.create_task(_ask(client, scenario))
    await _ledger(client, scenario, over=False)
    leaving.cancel()  # which closes the connection
    await asyncio.gather(leaving, return_exceptions=True)


async def _ledger(
    client: ClientSession, scenario: Scenario, *, over: bool
) -> str:
    """What is written, once something is, or all that ever will be."""
    give_up = time.monotonic() + PATIENCE
    while True:
        async with client.get(scenario.path) as response:
            response.raise_for_status()
            ledger = await response.json()
        there = ledger["over"] if over else ledger["stages"]
        if there or time.monotonic() > give_up:
            return ", ".join(ledger["stages"])
        await asyncio.sleep(0.02)
