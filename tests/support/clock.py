"""A clock that tests move, in the place of the `time` that a module looks at."""

from __future__ import annotations


class Clock:
    """Seconds go by while somebody sleeps, and `slow` of them whenever somebody looks here.

    So a server is slow if its test says so, and never since this machine stood still for a moment.
    """

    now = slow = 0.0

    def monotonic(self) -> float:
        """The seconds that went by."""
        self.now += self.slow
        return self.now

    def sleep(self, seconds: float) -> None:
        """They go by at once."""
        self.now += seconds
