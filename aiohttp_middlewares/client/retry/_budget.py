"""How many retries there may be among all requests."""

import math

from aiohttp_middlewares._core import options


class RetryBudget:
    """Keeps retries a small part of all requests.

    A bucket that is full at first. Each retry takes ``cost`` out of it, and
    each request that does not fail puts ``refund`` back. When the bucket is
    empty, a failure stays one: a service that is down for all is not asked
    three times by each. With the defaults, there are 100 retries at once,
    and in the long run one for ten successes.

    :param tokens: What the bucket holds; by default 100.
    :param cost: What a retry takes; by default 1.
    :param refund: What a success gives back; by default 0.1.
    :raises TypeError: For what is no number.
    :raises ValueError: For a number that is not positive (``refund`` may be
        0), and a ``cost`` that the bucket never holds.
    """

    def __init__(
        self, tokens: float = 100, *, cost: float = 1, refund: float = 0.1
    ) -> None:
        amounts = {"tokens": tokens, "cost": cost, "refund": refund}
        for name, amount in amounts.items():
            what, should = f"RetryBudget {name}", "a positive number"
            if name == "refund":
                should = "a number, 0 or more"
            if isinstance(amount, bool) or not isinstance(amount, int | float):
                options.refuse(TypeError, what, should, amount)
            if not 0 <= amount < math.inf or (name != "refund" and not amount):
                options.refuse(ValueError, what, should, amount)
        if cost > tokens:
            should = "no more than the tokens that there are"
            options.refuse(ValueError, "RetryBudget cost", should, cost)
        self._most = self._tokens = float(tokens)
        self._cost = cost
        self._refund = refund

    def withdraw(self) -> bool:
        """Pay for a retry; False when there is not enough left."""
        if self._tokens < self._cost:
            return False
        self._tokens -= self._cost
        return True

    def deposit(self) -> None:
        """Note a success."""
        self._tokens = min(self._most, self._tokens + self._refund)
