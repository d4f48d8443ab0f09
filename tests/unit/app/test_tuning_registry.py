"""Stages of adapters, rollback, and the defaults of tuning runs."""

import pytest
from factories import principal_of

from app.db.tables import Adapter
from app.errors import BadInput, Conflict, NotFound
from app.tuning_runs import registry, service
from app.use_cases import service as use_cases


@pytest.fixture
def session(database):
    with database.session() as session:
        yield session


@pytest.fixture
def principal(session):
    return principal_of(session, "ada")


@pytest.fixture
def use_case(session, principal):
    return use_cases.create(session, principal.workspace_id, "help", knowledge_bases=[])


@pytest.fixture
def adapter(session, principal, use_case):
    def make(name, workspace=True):
        row = Adapter(
            workspace_id=principal.workspace_id if workspace else None,
            use_case_id=use_case.id if workspace else None,
            name=name,
            digest=name * 8,
            path="",
            gguf_path="",
            base_sha256="0",
            manifest={},
        )
        session.add(row)
        session.flush()
        return row

    return make


def go_live(session, principal, *names):
    for name in names:
        registry.move(session, principal, name, "staged", "evaluated")
        registry.move(session, principal, name, "live", "won")


def test_a_live_adapter_serves_and_the_one_before_waits(session, principal, use_case, adapter):
    first, second = adapter("one"), adapter("two")
    assert first.stage == "candidate"
    go_live(session, principal, "one", "two")
    assert (first.stage, second.stage) == ("staged", "live")
    assert use_case.adapter_id == second.id


def test_rollback_goes_back_in_order(session, principal, use_case, adapter):
    one, two, three = (adapter(name) for name in ("one", "two", "three"))
    go_live(session, principal, "one", "two", "three")
    assert registry.rollback(session, principal, "help", "worse") is two
    assert (one.stage, two.stage, three.stage) == ("staged", "live", "retired")
    assert use_case.adapter_id == two.id
    assert registry.rollback(session, principal, "help", "worse too") is one
    with pytest.raises(Conflict, match="no earlier live adapter"):
        registry.rollback(session, principal, "help", "again")
    assert use_case.adapter_id == one.id


def test_every_move_is_told_with_who_and_why(session, principal, use_case, adapter):
    adapter("one")
    go_live(session, principal, "one")
    moves = registry.history(session, principal.workspace_id, "one")
    assert [(m["from"], m["to"], m["reason"]) for m in moves] == [
        ("candidate", "staged", "evaluated"),
        ("staged", "live", "won"),
    ]
    assert {m["by"] for m in moves} == {principal.name}


def test_stages_cannot_be_skipped_or_made_up(session, principal, use_case, adapter):
    adapter("one")
    with pytest.raises(Conflict, match="is candidate: next can be staged, retired"):
        registry.move(session, principal, "one", "live", "hurry")
    with pytest.raises(BadInput, match="stage 'prod' is unknown"):
        registry.move(session, principal, "one", "prod", "")


def test_what_serves_is_not_retired(session, principal, use_case, adapter):
    adapter("one")
    go_live(session, principal, "one")
    with pytest.raises(Conflict, match="serves 'help'"):
        registry.move(session, principal, "one", "retired", "")
    assert use_case.adapter_id is not None


def test_an_adapter_that_a_setting_made_live_can_be_gone_back_to(
    session, principal, use_case, adapter
):
    one, two = adapter("one"), adapter("two")
    use_cases.serve_with(session, use_case, adapter_id=one.id)
    go_live(session, principal, "two")
    assert one.stage == "staged"
    assert registry.rollback(session, principal, "help", "worse") is one
    assert two.stage == "retired"


def test_the_shipped_reader_has_no_stages(session, principal, use_case, adapter):
    adapter("reader", workspace=False)
    with pytest.raises(BadInput, match="has no stages"):
        registry.move(session, principal, "reader", "staged", "")


def test_another_workspace_neither_sees_nor_moves_it(session, principal, use_case, adapter):
    adapter("one")
    other = principal_of(session, "eve", workspace="other")
    with pytest.raises(NotFound):
        registry.move(session, other, "one", "staged", "")
    with pytest.raises(NotFound):
        registry.history(session, other.workspace_id, "one")


def test_defaults_follow_method_objective_and_start():
    assert service._defaults({}, "reader")["r"] == 32
    assert service._defaults({"method": "ia3"}, "none")["learning_rate"] == 3e-3
    assert service._defaults({"objective": "dpo"}, "reader")["learning_rate"] == 5e-5
    with pytest.raises(BadInput, match="choose lora, dora"):
        service._defaults({"method": "adalora"}, "none")
    with pytest.raises(BadInput, match="cannot start from the reader"):
        service._defaults({"method": "ia3"}, "reader")


def test_a_setting_leaves_one_live_adapter_and_the_one_that_serves_stays(
    session, principal, use_case, adapter
):
    one, two = adapter("one"), adapter("two")
    go_live(session, principal, "one")
    use_cases.serve_with(session, use_case, adapter_id=two.id)
    with pytest.raises(Conflict, match="serves 'help'"):
        registry.move(session, principal, "two", "retired", "unused?")
    assert (one.stage, two.stage) == ("staged", "live")
    assert registry.rollback(session, principal, "help", "worse") is one
    assert (one.stage, two.stage) == ("live", "retired")


def test_another_use_cases_adapter_keeps_its_own_stage(session, principal, use_case, adapter):
    one = adapter("one")
    go_live(session, principal, "one")
    other = use_cases.create(session, principal.workspace_id, "other", knowledge_bases=[])
    use_cases.serve_with(session, other, adapter_id=one.id)
    two = adapter("two")
    two.use_case_id = other.id
    go_live(session, principal, "two")
    assert (one.stage, two.stage) == ("live", "live")
    assert (use_case.adapter_id, other.adapter_id) == (one.id, two.id)


def test_an_adapter_whose_files_are_gone_does_not_serve(
    session, principal, use_case, adapter, tmp_path
):
    one = adapter("one")
    adapter("two")
    go_live(session, principal, "one", "two")
    one.path = str(tmp_path / "gone")
    with pytest.raises(Conflict, match="its folder is gone"):
        registry.rollback(session, principal, "help", "worse")
    with pytest.raises(Conflict, match="its folder is gone"):
        registry.move(session, principal, "one", "live", "back")
