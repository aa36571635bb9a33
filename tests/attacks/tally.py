"""What the attacks of a test run tried, as a table at its end: ``tally("checkpoints", tried, bad)`` in a test."""

from collections import Counter
from collections.abc import Callable

import pytest

Tally = Callable[[str, int, int], None]

_tried: Counter[str] = Counter()
_bad: Counter[str] = Counter()


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Count ``tried`` attacks of a kind, of which ``bad`` did harm."""

    def count(kind: str, tried: int, bad: int) -> None:
        # a test's properties reach the terminal from pytest-xdist's processes too
        request.node.user_properties.append(("attacks", (kind, tried, bad)))

    return count


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":
        for name, value in report.user_properties:
            if name == "attacks":
                kind, tried, bad = value
                _tried[kind] += tried
                _bad[kind] += bad


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _tried:
        return
    terminalreporter.section("attacks")
    width = max(map(len, (*_tried, "kind")))
    terminalreporter.line(f"{'kind':<{width}}  {'tried':>7}  {'bad':>5}")
    for kind in sorted(_tried):
        terminalreporter.line(f"{kind:<{width}}  {_tried[kind]:>7}  {_bad[kind]:>5}")
