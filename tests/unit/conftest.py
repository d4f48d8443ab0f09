"""Unit tests open no network connection."""

import pytest
from pytest_socket import disable_socket, enable_socket


@pytest.fixture(autouse=True)
def _no_network():
    # asyncio's self-pipe is a Unix socket pair.
    disable_socket(allow_unix_socket=True)
    yield
    enable_socket()
