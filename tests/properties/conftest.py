"""The two sizes of the search: ``ci``, the same few dozen examples in every run, and ``nightly``."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.zoo.case import single_threaded

_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", max_examples=70, derandomize=True, **_COMMON)
settings.register_profile("nightly", max_examples=1000, print_blob=True, **_COMMON)
# Without a word on the command line it is "ci", also where the environment made Hypothesis choose its own of that name.
if settings.get_current_profile_name() in ("default", "ci"):
    settings.load_profile("ci")


def pytest_configure(config: pytest.Config) -> None:
    """Without a profile on the command line it is ``ci``, which hypothesis does not know in time by itself."""
    if not config.getoption("--hypothesis-profile"):
        settings.load_profile("ci")


@pytest.fixture(autouse=True, scope="session")
def _steady() -> Iterator[None]:
    with single_threaded():
        yield
