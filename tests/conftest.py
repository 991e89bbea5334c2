"""For all tests: on request, a skipped test is a failed run."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fail-on-skip", action="store_true", help="a skipped test fails the run")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--fail-on-skip") and exitstatus == pytest.ExitCode.OK and reporter is not None:
        if skipped := reporter.stats.get("skipped"):
            reporter.write_line(f"{len(skipped)} tests were skipped, which --fail-on-skip forbids", red=True)
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
