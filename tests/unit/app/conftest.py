"""An empty in-memory database per test."""

import pytest
from factories import make_database


@pytest.fixture
def database():
    database = make_database()
    yield database
    database.close()
