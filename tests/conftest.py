"""What all tests share: one real broker a session, started by the first test that asks for it."""

import itertools
import re
from collections.abc import Iterator

import pytest

from broker import Broker, BrokerError
from proxy import Proxied, Proxy

pytest.register_assert_rewrite("disturbance", "program", "terminal", "watching")

TEST_NAME_LENGTH_MAX = 100  # a topic's name has at most 249 characters, and the test adds its own ending

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Give the session's broker, running. A test that takes it down brings it up again before it ends.

    Where it cannot be had the test fails, never skips: a suite without its broker has not been run.
    """
    try:
        with Broker(tmp_path_factory.mktemp("broker")) as running:
            yield running
    except BrokerError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """Give a broker of the module's own behind a proxy, both running."""
    with Proxy() as proxy, Broker(tmp_path_factory.mktemp("proxied"), advertised_port=proxy.port) as running:
        proxy.target = running.port
        yield Proxied(running, proxy)


@pytest.fixture
def topic_prefix(request: pytest.FixtureRequest) -> str:
    """Give a beginning for topic, group and transactional ids that no other test on this broker has."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name).strip("-")
    return f"{name[:TEST_NAME_LENGTH_MAX]}-{next(_numbers)}"
