"""check_stack: what it finds, what it leaves alone, and its command."""

import pytest
from aiohttp import web
from list_faults import FAULTS, Known

from aiohttp_middlewares.check import check_stack


def codes(app: web.Application) -> set[str]:
    return {finding.code for finding in check_stack(app)}


each_fault = pytest.mark.parametrize(
    "fault",
    [pytest.param(known, id=f"{known.code}-{known.name}") for known in FAULTS],
)


@each_fault
@pytest.mark.filterwarnings("ignore:old-style middleware:DeprecationWarning")
async def test_fault_does_harm_and_is_found_until_it_is_mended(
    fault: Known,
) -> None:
    app, harm = fault.made(False)
    assert codes(app) == {fault.code}
    assert await harm(app)
    app, harm = fault.made(True)
    assert codes(app) == set()
    assert not await harm(app)
