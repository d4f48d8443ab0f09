"""Settings from the environment, and library errors as the service's."""

import errno
import stat

import pytest
import sqlalchemy as sa
from pydantic import ValidationError

from app.config import Settings
from app.errors import AppError, StorageFull, as_app_error
from app.main import problem
from app.workspaces.operator import operator_secret
from evals.errors import SampleError
from retrieval.errors import EmptyDocument, IndexUnreadable, UnsupportedFormat
from tuning.errors import TuningError


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch, tmp_path):
    import os

    for name in list(os.environ):
        if name.startswith("TANDEM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_everything_lies_under_home_unless_said_otherwise(monkeypatch, tmp_path):
    monkeypatch.setenv("TANDEM_HOME", str(tmp_path / "data"))
    settings = Settings()
    assert settings.sql_url == f"sqlite:///{tmp_path}/data/tandem.sqlite"
    assert settings.jobs_sql_url == f"sqlite:///{tmp_path}/data/jobs.sqlite"
    monkeypatch.setenv("TANDEM_DATABASE_URL", "postgresql://db/tandem")
    assert Settings().sql_url == "postgresql://db/tandem"


def test_relative_home_is_resolved_once(tmp_path, monkeypatch):
    settings = Settings()
    assert settings.root == (tmp_path / ".tandem").resolve()
    monkeypatch.chdir("/")
    assert settings.root == (tmp_path / ".tandem").resolve()


def test_dotenv_file_is_read_and_other_names_are_ignored(tmp_path):
    (tmp_path / ".env").write_text("TANDEM_PORT=9001\nTANDEM_NOT_A_SETTING=1\nOTHER=2\n")
    assert Settings().port == 9001


@pytest.mark.parametrize(
    ("name", "value"),
    [("PASSAGES", "0"), ("SLOTS", "none"), ("CHUNK_TOKENS", "9000"), ("CONTEXT_TOKENS", "10")],
)
def test_setting_out_of_range_is_named(monkeypatch, name, value):
    monkeypatch.setenv(f"TANDEM_{name}", value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert caught.value.errors()[0]["loc"] == (name.lower(),)


def test_key_is_not_printed(monkeypatch):
    monkeypatch.setenv("TANDEM_API_KEY", "tdm.very.secret")
    assert "secret" not in repr(Settings())


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), 507),
        (OSError(errno.EDQUOT, "Quota exceeded"), 507),
        (sa.exc.OperationalError("INSERT", {}, Exception("database or disk is full")), 507),
        (UnsupportedFormat("program.exe is of no supported type"), 415),
        (EmptyDocument("scan.pdf holds no text"), 415),
        (IndexUnreadable("run `tandem kb rebuild x`"), 400),
        (TuningError("rank 0 is too small"), 400),
        (SampleError("line 3: not valid JSON"), 400),
        (StorageFull("full"), 507),
    ],
)
def test_expected_failures_have_a_status_and_one_sentence(error, status):
    found = as_app_error(error)
    assert found.status == status
    assert found.detail
    assert "\n" not in found.detail
    shape = problem(found)
    assert (shape["status"], shape["detail"]) == (status, found.detail)
    assert shape["error"]["message"] == found.detail


@pytest.mark.parametrize("error", [ValueError("x"), OSError(errno.EIO, "I/O"), KeyError("k")])
def test_unexpected_failures_are_not_dressed_up(error):
    assert as_app_error(error) is None


def all_errors(kind=AppError):
    return {kind} | {e for child in kind.__subclasses__() for e in all_errors(child)}


def test_every_error_has_a_title_and_a_status_of_its_class():
    for kind in (e for e in all_errors() - {AppError} if not e.__module__.startswith("app.cli")):
        assert 400 <= kind.status < 600, kind
        assert kind.title != AppError.title, kind


def test_operator_secret_is_made_once_and_only_its_owner_reads_it(tmp_path):
    secret = operator_secret(tmp_path / "home")
    assert operator_secret(tmp_path / "home") == secret
    mode = (tmp_path / "home" / "operator.secret").stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert len(secret) >= 32
