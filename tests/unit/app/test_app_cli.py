"""The `tandem` command in this process, without a server and without weights."""

import json
import sys

import pytest
from factories import add_adapter, make_container

import app.bootstrap
from app.cli.main import main


@pytest.fixture
def home(tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("TANDEM_HOME", str(home))
    monkeypatch.delenv("TANDEM_API_KEY", raising=False)
    # It would bind the process's loggers to this test's captured stderr.
    monkeypatch.setattr(sys.modules["app.cli.main"], "configure_logs", lambda *_, **__: None)
    monkeypatch.setattr(app.bootstrap, "Container", lambda settings: make_container(settings.home))
    monkeypatch.chdir(tmp_path)
    return home


@pytest.fixture
def tandem(home, monkeypatch, capsys):
    """Runs a command: exit code, stdout, stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tandem", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


@pytest.fixture
def use_case(tandem, home):
    assert tandem("kb", "create", "docs")[0] == 0
    assert tandem("use-case", "create", "support", "--kb", "docs")[0] == 0
    container = make_container(home, answers=False)
    add_adapter(container, "house")
    container.close()
    assert tandem("use-case", "serve-with", "support", "--adapter", "house")[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--json", "kb", "list"),
        ("kb", "--json", "list"),
        ("kb", "list", "--json"),
    ],
)
def test_json_may_stand_anywhere(tandem, arguments):
    code, out, err = tandem(*arguments)
    assert (code, json.loads(out), err) == (0, [], "")


def test_success_is_exit_code_0_and_says_what_happened(tandem):
    code, out, _ = tandem("kb", "create", "docs")
    assert (code, out.strip()) == (0, "knowledge base 'docs' created")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("bogus",), 2, "bogus"),
        (("kb", "create"), 2, "name"),
        (("ask", "support"), 2, "question"),
        (("search", "docs", "q", "--limit", "many"), 2, "--limit"),
        (("kb", "list", "--nonsense"), 2, "--nonsense"),
        (("kb", "create", "a/b"), 1, "must be 1-100 printable characters"),
        (("ingest", "docs", "/no/such/place"), 1, "/no/such/place"),
        (("documents", "list", "dox"), 1, "no knowledge base 'dox': there are none yet"),
        (("keys", "create", "ada", "--role", "boss"), 1, "choose owner, knowledge"),
        (("--workspace", "nowhere", "kb", "list"), 1, "there are default"),
        (("--as", "a/b", "kb", "list"), 1, "person name 'a/b'"),
        (("answers", "show", "nothing"), 1, "no answer 'nothing'"),
        (("decisions", "why", "nothing"), 1, "no decision 'nothing'"),
        (("tune",), 1, "USE_CASE and --dataset"),
        (("jobs", "watch", "nothing"), 1, "no job 'nothing'"),
    ],
)
def test_failure_is_one_sentence_on_stderr_and_a_code(tandem, arguments, code, said):
    got, out, err = tandem(*arguments)
    assert got == code
    assert said in " ".join(err.split())
    assert out == ""
    assert "Traceback" not in err


def test_wrong_use_case_lists_the_valid_names(tandem, use_case):
    code, _, err = tandem("ask", "suport", "What does Ripple cost?")
    assert code == 1
    assert "no use case 'suport': there are support" in " ".join(err.split())


def test_unknown_arm_lists_the_valid_ones(tandem, use_case):
    code, _, err = tandem("ask", "support", "Hi", "--arm", "best")
    assert code == 1
    assert "arm 'best' is unknown: choose prompt, tuned, rag, hybrid" in " ".join(err.split())
    code, _, err = tandem("use-case", "serve-with", "support", "--arm", "best")
    assert code == 1


def test_ask_shows_the_answer_and_its_identity(tandem, use_case):
    code, out, _ = tandem("ask", "support", "Hello!", "--arm", "tuned")
    assert code == 0
    assert "Thank you for asking" in out
    code, out, _ = tandem("ask", "support", "Hello!", "--json")
    reply = json.loads(out)
    assert code == 0
    assert reply["tandem"]["answer_id"]
    code, out, _ = tandem("answers", "show", reply["tandem"]["answer_id"], "--json")
    assert json.loads(out)["asked_by"] == "operator"


@pytest.mark.parametrize("person", ["rob", "Zoë Čapek"])
def test_person_given_with_as_is_who_acts(tandem, use_case, person):
    _, out, _ = tandem("--as", person, "ask", "support", "Hello!", "--json")
    answer = json.loads(out)["tandem"]["answer_id"]
    _, out, _ = tandem("answers", "show", answer, "--json")
    assert json.loads(out)["asked_by"] == person


def test_text_that_looks_like_markup_is_shown_as_it_is(tandem, use_case):
    code, out, _ = tandem("kb", "create", "[red]x[]")
    assert code == 0
    assert "[red]x[]" in out
    code, out, _ = tandem("kb", "list")
    assert code == 0
    assert "[red]x[]" in out
    code, _, err = tandem("documents", "list", "[bold]y")
    assert code == 1
    assert "[bold]y" in err


def test_setting_that_cannot_be_used_is_named(tandem, monkeypatch):
    monkeypatch.setenv("TANDEM_SLOTS", "none")
    code, _, err = tandem("kb", "list")
    assert code == 2
    assert "TANDEM_SLOTS" in err


def test_command_interrupted_says_that_it_can_go_on(tandem, monkeypatch):
    from app.cli.client import Api

    def interrupt(self, *_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Api, "call", interrupt)
    code, _, err = tandem("kb", "list")
    assert code == 130
    assert "goes on where it stopped" in " ".join(err.split())


def test_data_directory_in_use_is_said_with_its_holder(tandem, home):
    from app.bootstrap import HomeLock

    lock = HomeLock(home)
    lock.acquire()
    try:
        code, _, err = tandem("kb", "list")
    finally:
        lock.release()
    assert code == 1
    assert "in use by process" in " ".join(err.split())
    assert tandem("kb", "list")[0] == 0


def test_wrong_key_is_refused(tandem, monkeypatch):
    monkeypatch.setenv("TANDEM_API_KEY", "tdm.not.akey")
    code, _, err = tandem("kb", "list")
    assert code == 1
    assert "the API key is not valid" in err


def test_help_names_every_command_group(tandem):
    code, out, _ = tandem("--help")
    assert code == 0
    for name in ("doctor", "serve", "kb", "ingest", "ask", "feedback", "dataset", "tune", "eval"):
        assert name in out


def small_adapter(folder, value=1.0):
    import torch

    from tuning.adapters import AdapterManifest, write_adapter

    tensors = {"m.lora_A.weight": torch.full((2, 3), value), "m.lora_B.weight": torch.ones(4, 2)}
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
    return write_adapter(folder, tensors, config, AdapterManifest("", "b" * 64, "t", 0, 0, 0))


def test_finished_adapters_are_averaged_by_a_command(tandem, tmp_path):
    parents = [small_adapter(tmp_path / name, value) for name, value in (("a", 1.0), ("b", 3.0))]
    code, out, _ = tandem("adapters", "average", "a", "b", "--out", "c", "--rank", "1", "--json")
    made = json.loads(out)
    assert (code, made["rank"]) == (0, 1)
    assert [parent["digest"] for parent in made["parents"]] == [p.digest for p in parents]
    assert made["mean_error"] < 1e-6  # both updates point one way
    code, out, _ = tandem("adapters", "average", "a", "b", "--out", "d")
    assert "mean of 2 adapters, rank 4" in out
    code, _, err = tandem("adapters", "average", "a", "--out", "e")
    assert code == 1
    assert "two adapters or more, not 1" in err


def test_verifying_a_forged_adapter_ends_with_exit_code_1(tandem, home, tmp_path):
    from app.datasets.signing import signing_key
    from app.db.tables import Adapter
    from tuning.adapter_signature import sign

    tandem("kb", "create", "docs")
    manifest = small_adapter(tmp_path / "a")
    container = make_container(home, answers=False)
    sign(tmp_path / "a", signing_key(container.settings.root))
    add_adapter(container, "house", manifest.digest)
    with container.database.session() as session:
        row = session.query(Adapter).filter_by(name="house").one()
        row.path, row.base_sha256 = str(tmp_path / "a"), "b" * 64
    container.close()
    code, out, _ = tandem("adapters", "verify", "house", "--json")
    # With logging left alone, the warning about the reader's base comes first.
    assert (code, json.loads(out[out.index("{") :])["signature"]) == (0, "signed")
    file = tmp_path / "a" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"steps": 9}))
    code, _, err = tandem("adapters", "verify", "house")
    assert code == 1
    assert "was not signed with this installation's key" in err


def test_mending_of_citations_is_switched_by_a_command(tandem):
    tandem("kb", "create", "docs")
    tandem("use-case", "create", "support", "--kb", "docs")
    for flag, wanted in (("--citations-as-said", False), ("--correct-citations", True)):
        code, out, _ = tandem("use-case", "set", "support", flag, "--json")
        assert code == 0
        assert json.loads(out)["options"]["correct_citations"] is wanted
