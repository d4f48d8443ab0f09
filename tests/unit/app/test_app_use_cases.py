"""Use cases, names, keys and adapters as services see them."""

import pytest
from factories import principal_of

from app.db.tables import Adapter, KnowledgeBase
from app.errors import BadInput, Conflict, NotFound, Unauthenticated
from app.use_cases import service
from app.workspaces import service as workspaces


@pytest.fixture
def session(database):
    with database.session() as session:
        yield session


@pytest.fixture
def workspace(session):
    return principal_of(session, "ada").workspace_id


def knowledge_base(session, workspace, name="docs"):
    kb = KnowledgeBase(workspace_id=workspace, name=name, embedder="e")
    session.add(kb)
    session.flush()
    return kb


def adapter(session, name, digest, workspace=None):
    row = Adapter(
        workspace_id=workspace,
        name=name,
        digest=digest,
        path="",
        gguf_path="",
        base_sha256="0",
        manifest={},
    )
    session.add(row)
    session.flush()
    return row


def test_new_use_case_serves_hybrid_over_its_knowledge_bases(session, workspace):
    kb = knowledge_base(session, workspace)
    made = service.create(session, workspace, "support", knowledge_bases=["docs"])
    assert (made.arm, made.knowledge_base_ids) == ("hybrid", [kb.id])


def test_unknown_knowledge_base_lists_the_known_ones(session, workspace):
    knowledge_base(session, workspace, "faq")
    knowledge_base(session, workspace, "docs")
    with pytest.raises(NotFound, match="'dox': there are docs, faq"):
        service.create(session, workspace, "support", knowledge_bases=["dox"])


def test_knowledge_base_of_another_workspace_cannot_be_used(session, workspace):
    other = principal_of(session, "eve", workspace="elsewhere").workspace_id
    knowledge_base(session, other, "secrets")
    with pytest.raises(NotFound, match="none yet"):
        service.create(session, workspace, "support", knowledge_bases=["secrets"])


def test_name_is_taken_once_per_workspace(session, workspace):
    service.create(session, workspace, "support", knowledge_bases=[])
    with pytest.raises(Conflict, match="'support' exists already"):
        service.create(session, workspace, "support", knowledge_bases=[])
    other = principal_of(session, "eve", workspace="elsewhere").workspace_id
    service.create(session, other, "support", knowledge_bases=[])


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", "a:b", "a\nb", "x" * 101, "\x00", "\ud800"])
def test_unusable_names_are_refused(session, workspace, name):
    with pytest.raises(BadInput, match="printable"):
        service.create(session, workspace, name, knowledge_bases=[])


@pytest.mark.parametrize("name", ["a", "Zoë's café", "x" * 100, "支持"])
def test_names_of_people_and_products_are_fine(session, workspace, name):
    assert service.create(session, workspace, name, knowledge_bases=[]).name == name


def test_abstention_sentence_must_start_with_the_default_one(session, workspace):
    with pytest.raises(BadInput, match="must start with"):
        service.create(session, workspace, "s", knowledge_bases=[], abstain_sentence="Dunno.")


def test_missing_use_case_lists_the_known_ones(session, workspace):
    for name in ("sales", "support"):
        service.create(session, workspace, name, knowledge_bases=[])
    with pytest.raises(NotFound, match="'suport': there are sales, support"):
        service.get(session, workspace, "suport")


def test_unknown_arm_lists_the_known_ones(session, workspace):
    made = service.create(session, workspace, "support", knowledge_bases=[])
    with pytest.raises(BadInput, match="choose prompt, tuned, rag, hybrid"):
        service.serve_with(session, made, arm="best")
    assert made.arm == "hybrid"


def test_adapter_is_found_by_id_name_or_digest_prefix(session, workspace):
    row = adapter(session, "house", "abcdef0123456789" * 4, workspace)
    for key in (row.id, "house", "abcdef01", row.digest):
        assert service.find_adapter(session, workspace, key).id == row.id
    for key in ("abcdef", "abcdef0%", "________"):
        with pytest.raises(NotFound, match="there are house"):
            service.find_adapter(session, workspace, key)


def test_adapter_of_another_workspace_does_not_exist_and_the_reader_does(session, workspace):
    other = principal_of(session, "eve", workspace="elsewhere").workspace_id
    secret = adapter(session, "secret", "f" * 64, other)
    reader = adapter(session, "reader", "e" * 64)
    for key in (secret.id, "secret", "f" * 64):
        with pytest.raises(NotFound) as caught:
            service.find_adapter(session, workspace, key)
        assert "there are reader" in caught.value.detail
    assert service.find_adapter(session, workspace, "reader").id == reader.id


def test_key_authenticates_until_it_is_revoked(session, workspace):
    presented = workspaces.create_key(session, workspace, "ada", "client")
    principal = workspaces.authenticate(session, presented)
    assert (principal.name, principal.role, principal.operator) == ("ada", "client", False)
    (row,) = workspaces.list_keys(session, workspace)
    assert presented.split(".")[2] not in (row.secret_sha256, row.id)
    workspaces.revoke_key(session, workspace, row.id)
    with pytest.raises(Unauthenticated):
        workspaces.authenticate(session, presented)


@pytest.mark.parametrize("spoil", [lambda k: k[:-1], lambda k: k + "x", lambda k: k[4:], str.upper])
def test_spoiled_key_is_refused(session, workspace, spoil):
    presented = workspaces.create_key(session, workspace, "ada", "client")
    with pytest.raises(Unauthenticated):
        workspaces.authenticate(session, spoil(presented))


def test_unknown_role_lists_the_known_ones(session, workspace):
    with pytest.raises(BadInput, match="owner, knowledge, reviewer, ml, client"):
        workspaces.create_key(session, workspace, "ada", "admin")


def test_key_name_is_one_persons(session, workspace):
    workspaces.create_key(session, workspace, "ada", "client")
    with pytest.raises(Conflict):
        workspaces.create_key(session, workspace, "ada", "reviewer")
