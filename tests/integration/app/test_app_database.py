"""Migrations on SQLite and PostgreSQL, and what the engine promises."""

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.util.exc import CommandError

from app.db.base import now
from app.db.migrations import alembic_config, current_revision, upgrade
from app.db.session import Database, create_sql_engine, sqlite_version
from app.db.tables import Base, Workspace


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'deep' / 'er' / 'tandem.sqlite'}"
    else:
        url = request.getfixturevalue("postgres_url")
    database = Database(url)
    yield database
    database.close()


def tables(database):
    return set(sa.inspect(database.engine).get_table_names()) - {"alembic_version"}


def test_migrations_go_up_down_and_up_again(database):
    assert current_revision(database) is None
    head = upgrade(database)
    assert tables(database) == set(Base.metadata.tables)
    assert upgrade(database) == head  # a second start changes nothing
    command.downgrade(alembic_config(database), "base")
    assert tables(database) == set()
    assert upgrade(database) == head
    assert tables(database) == set(Base.metadata.tables)


def fill(database):
    """A row in every table that the third revision rebuilds, and in what refers to them."""
    rows = {
        "workspaces": {"id": "w", "name": "acme", "limits": {"concurrency": 2}},
        "api_keys": {"workspace_id": "w", "name": "k", "role": "client", "secret_sha256": "0" * 64},
        "use_cases": {
            "id": "u",
            "workspace_id": "w",
            "name": "support",
            "knowledge_base_ids": [],
            "system_prompt": "",
            "abstain_sentence": "",
            "options": {},
        },
        "answers": {
            "id": "a",
            "workspace_id": "w",
            "use_case_id": "u",
            "question": "Q?",
            "history": [],
            "text": "A.",
            "arm": "rag",
            "abstained": False,
            "finish_reason": "stop",
            "identity": {},
            "identity_sha256": "0" * 64,
            "timings": {},
            "prompt_tokens": 1,
            "completion_tokens": 1,
            "asked_by": "k",
            "raw_text": "A.",
        },
        "answer_chunks": {
            "answer_id": "a",
            "number": 1,
            "chunk_id": "c",
            "document_id": "d",
            "version_id": "v",
            "score": 1.0,
            "cited": True,
        },
    }
    with database.engine.begin() as connection:
        for name, row in rows.items():
            connection.execute(Base.metadata.tables[name].insert(), row)
    return list(rows)


@pytest.mark.parametrize("revision", ["0001", "0002"])
def test_downgrade_past_the_third_revision_keeps_the_rows(database, revision):
    head = upgrade(database)
    filled = fill(database)
    command.downgrade(alembic_config(database), revision)
    with database.engine.connect() as connection:
        for name in filled:
            count = connection.exec_driver_sql(f"SELECT count(*) FROM {name}").scalar()
            assert (name, count) == (name, 1)
    columns = {column["name"] for column in sa.inspect(database.engine).get_columns("answers")}
    assert columns.isdisjoint({"raw_text", "request", "coverage", "cached_from"})
    assert upgrade(database) == head
    with database.engine.connect() as connection:
        answer = connection.execute(sa.select(Base.metadata.tables["answers"])).one()
        assert (answer.text, answer.raw_text) == ("A.", None)
        if connection.dialect.name == "sqlite":
            assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []


def test_models_and_migrations_agree(database):
    upgrade(database)
    try:
        command.check(alembic_config(database))
    except CommandError as error:
        pytest.fail(f"the tables have changed without a revision: {error}")


def test_transaction_that_raises_leaves_nothing(database):
    upgrade(database)

    def insert_and_raise():
        with database.session() as session:
            session.add(Workspace(name="half"))
            session.flush()
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        insert_and_raise()
    with database.session() as session:
        assert session.scalar(sa.select(sa.func.count(Workspace.id))) == 0


def test_times_come_back_aware_and_in_utc(database):
    upgrade(database)
    moment = now()
    with database.session() as session:
        session.add(Workspace(name="timed", created_at=moment))
    with database.session() as session:
        found = session.scalar(sa.select(Workspace.created_at))
    assert found == moment
    assert found.utcoffset().total_seconds() == 0


def test_foreign_keys_hold(database):
    from app.db.tables import ApiKey

    upgrade(database)

    def insert_orphan():
        with database.session() as session:
            session.add(ApiKey(workspace_id="none", name="x", role="client", secret_sha256="0"))

    with pytest.raises(sa.exc.IntegrityError):
        insert_orphan()


def test_sqlite_has_the_wal_fix_and_syncs_fully(tmp_path):
    assert tuple(map(int, sqlite_version().split("."))) >= (3, 51, 3)
    engine = create_sql_engine(f"sqlite:///{tmp_path / 'a.sqlite'}")
    with engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    engine.dispose()


def test_full_disk_is_a_507_sentence(tmp_path):
    from app.errors import as_app_error

    engine = create_sql_engine(f"sqlite:///{tmp_path / 'full.sqlite'}")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE filler (x BLOB)")
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}")
        with pytest.raises(sa.exc.OperationalError) as caught:
            connection.exec_driver_sql("INSERT INTO filler VALUES (zeroblob(1000000))")
    found = as_app_error(caught.value)
    assert found is not None
    assert found.status == 507
    engine.dispose()


def test_many_threads_write_without_locked_errors(database):
    from concurrent.futures import ThreadPoolExecutor

    upgrade(database)

    def write(number):
        for k in range(5):
            with database.session() as session:
                count = session.scalar(sa.select(sa.func.count(Workspace.id)))
                session.add(Workspace(name=f"{number}-{k}-{count}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    with database.session() as session:
        assert session.scalar(sa.select(sa.func.count(Workspace.id))) == 40


@pytest.mark.parametrize("door", ["session", "writing_rows"])
def test_writer_that_finds_the_database_locked_hears_of_it_in_sqlalchemys_words(tmp_path, door):
    database = Database(f"sqlite:///{tmp_path / 'tandem.sqlite'}")
    upgrade(database)
    database.close()
    sa.event.listen(
        database.engine, "connect", lambda raw, _: raw.execute("PRAGMA busy_timeout=10")
    )
    other = Database(database.url)
    with other.writing_rows() as holder:
        holder.exec_driver_sql("SELECT 1")
        with (
            pytest.raises(sa.exc.OperationalError, match="locked"),
            getattr(database, door)() as it,
        ):
            it.execute(sa.text("SELECT 1"))
    with database.writing_rows() as rows:  # nothing of the failure stays behind
        assert rows.scalar(sa.text("SELECT 1")) == 1
    other.close()
    database.close()
