"""Judge, style classifier, router and flips around a finished evaluation."""

import json
from pathlib import Path

import pytest
from factories import write_jsonl

from app.cli import main as cli
from app.cli import state as cli_state

PAGES = {
    f"plan{i}.md": f"# Plan {i}\n\nThe plan Number{i} costs {40 + i} euros a month.\n"
    for i in range(24)
}
ROWS = [(f"q{i}", f"What does the plan Number{i} cost?", f"{40 + i} euros") for i in range(24)]


@pytest.fixture(scope="module")
def tenant(service):
    return service.furnished(PAGES)


@pytest.fixture(scope="module")
def evaluation(tenant, service):
    name = write_jsonl(
        service.folder / "plans.jsonl",
        [{"id": i, "question": q, "answers": [a]} for i, q, a in ROWS],
    )
    body = {"use_case": "support", "samples": str(name), "arms": ["rag", "prompt"],
            "primary": "contains_answer"}  # fmt: skip
    reply = service.operator_in(tenant, "POST", "/api/v1/evaluations", json=body)
    job = tenant.wait(reply.json()["id"])
    assert job["state"] == "succeeded", job
    return reply.json()["evaluation"], Path(job["result"]["path"])


class InThisProcess:
    """The connection of a command, to the test's service."""

    in_process = True

    def __init__(self, service, tenant):
        self.service, self.tenant = service, tenant

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def call(self, method, path, **kwargs):
        reply = self.service.operator_in(self.tenant, method, path, **kwargs)
        assert reply.is_success, reply.text
        return reply.json()

    def wait(self, job, show):
        done = self.tenant.wait(job["id"])
        assert done["state"] == "succeeded", done
        show(done)
        return done


@pytest.fixture
def run(service, tenant, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("TANDEM_ROOT", str(tmp_path / "home"))
    monkeypatch.setattr(cli_state, "Api", lambda *_, **__: InThisProcess(service, tenant))

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["tandem", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli()
        shown = capsys.readouterr()
        return ended.value.code, shown.out, shown.err

    return call


def outputs_of(folder):
    return [json.loads(line) for line in (folder / "outputs.jsonl").open()][1:]


def test_a_judge_is_calibrated_on_labels_and_stands_in_the_report(run, evaluation, tmp_path):
    name, folder = evaluation
    file = tmp_path / "label.jsonl"
    code, said, _ = run("eval", "judge", name, "--to-label", 44, "--out", file)
    assert code == 0, said
    rows = [json.loads(line) for line in file.open()]
    assert {row["arm"] for row in rows} == {"rag", "prompt"}
    assert all(row["good"] is None for row in rows)
    known = {i: a for i, _, a in ROWS}
    labels = write_jsonl(
        tmp_path / "labels.jsonl",
        [{"arm": r["arm"], "id": r["id"], "good": known[r["id"]] in r["text"]} for r in rows],
    )
    verdicts = write_jsonl(
        tmp_path / "verdicts.jsonl",
        [{"arm": o["arm"], "id": o["sample_id"], "good": o["arm"] == "rag"}
         for o in outputs_of(folder) if o["arm"] in ("rag", "prompt")],
    )  # fmt: skip
    code, said, _ = run("--json", "eval", "judge", name, "--labels", labels, "--verdicts", verdicts)
    assert code == 0, said
    arms = {row["arm"]: row for row in json.loads(said)["arms"]}
    assert arms["rag"]["labels"] == 22
    assert arms["rag"]["sensitivity"]["estimate"] == 1.0
    assert arms["rag"]["corrected"] is not None
    page = (folder / "report.html").read_text()
    assert "corrected (PPI++)" in page
    result = json.loads((folder / "result.json").read_text())
    assert result["manifest"]["look"] == "1 of 1 planned"  # judging is no new look


def test_the_services_model_judges_where_no_verdicts_are_given(tenant, evaluation, service):
    name, folder = evaluation
    own = {"arm": "rag", "id": "q0", "good": True, "judge": service.container.engine.identity}
    others = {"arm": "rag", "id": "q1", "good": True, "judge": {"base": "another model"}}
    (folder / "verdicts.jsonl").write_text(f'{json.dumps(own)}\n{json.dumps(others)}\n{{"half')
    labels = [
        {"arm": arm, "id": f"q{i}", "good": True} for arm in ("rag", "prompt") for i in (0, 1)
    ]
    before = len(service.container.engine.prompts)
    path = f"/api/v1/evaluations/{name}/judge"
    reply = tenant.call("POST", path, "ml", json={"labels": labels})
    job = tenant.wait(reply.json()["id"])
    assert job["state"] == "succeeded", job
    assert len(service.container.engine.prompts) - before == 2 * len(ROWS) - 1  # one was kept
    lines = [line for line in (folder / "verdicts.jsonl").read_text().splitlines() if line]
    assert json.loads(lines[3])["judge"] == service.container.engine.identity
    arms = {row["arm"]: row for row in job["result"]["arms"]}
    assert arms["rag"]["corrected"] is None  # two labels correct nothing
    assert tenant.call("GET", path, "client").json()["arms"] == job["result"]["arms"]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([], "without people's labels"),
        ([{"arm": "rag", "id": "q0"}], "without people's labels"),
        ([{"arm": "rag", "id": "q99", "good": True}], "'q99'"),
    ],
)
def test_a_judge_without_usable_labels_is_refused(tenant, evaluation, labels, said):
    reply = tenant.call(
        "POST", f"/api/v1/evaluations/{evaluation[0]}/judge", "ml", json={"labels": labels}
    )
    assert reply.status_code == 400
    assert said in reply.json()["detail"]


@pytest.mark.parametrize(
    ("labelled", "judged", "said"),
    [
        (("rag", "q0"), ("rag", "q1"), "without a verdict"),
        (("rag", "q0"), ("rag", "q99"), "'q99' to judge"),
        (("BM25 and template", "q0"), None, "'BM25 and template'"),
    ],
)
def test_verdicts_that_do_not_fit_are_refused_before_anything_is_kept(
    tenant, evaluation, labelled, judged, said
):
    name, folder = evaluation
    before = (folder / "judge.json").read_text() if (folder / "judge.json").exists() else None
    assert any(o["arm"] == "BM25 and template" for o in outputs_of(folder))
    body = {"labels": [{"arm": labelled[0], "id": labelled[1], "good": True}]}
    if judged:
        body["verdicts"] = [{"arm": judged[0], "id": judged[1], "good": True}]
    path = f"/api/v1/evaluations/{name}/judge"
    reply = tenant.call("POST", path, "ml", json=body)
    assert reply.status_code == 400, reply.text
    assert said in reply.json()["detail"]
    assert ((folder / "judge.json").read_text() if before else None) == before


def test_the_style_classifier_scores_every_arm(run, evaluation, tmp_path):
    name, _ = evaluation
    house = tmp_path / "house.txt"
    house.write_text(
        "\n".join(f"The plan Number{i} costs {i} euros a month." for i in range(90, 120))
    )
    others = write_jsonl(
        tmp_path / "others.jsonl", [{"text": f"Yo dude, item {i} is pricey!!"} for i in range(30)]
    )
    command = ("eval", "style", name, "--house", house, "--others", others)
    code, said, _ = run("--json", *command)
    assert code == 0, said
    made = json.loads(said)
    assert made["trusted"]
    assert made["held_out_auc"] > 0.9
    arms = {row["arm"]: row["in_house"]["estimate"] for row in made["arms"]}
    assert set(arms) == {"rag", "prompt"}
    assert arms["rag"] > 0.9
    code, said, _ = run(*command)
    assert "tells house texts from others" in said
    house.write_text("One.\nTwo.\n")
    reply = tenant_error(run, "eval", "style", name, "--house", house)
    assert "too few" in reply


def tenant_error(run, *command):
    with pytest.raises(AssertionError) as error:
        run(*command)
    return str(error.value)


def test_a_router_is_worth_it_only_with_a_gain_above_zero(run, evaluation):
    name, folder = evaluation
    code, said, _ = run("--json", "decisions", "router", "support", "--evaluation", name)
    assert code == 0, said
    made = json.loads(said)
    assert (made["verdict"], made["file"]) == ("not worth it", None)
    assert made["best_arm"] == "rag"
    assert not (folder / "router.json").exists()
    assert {row["arm"] for row in made["calibration"]} == {"rag", "prompt"}
    code, said, _ = run(
        "decisions", "router", "support", "--cost", "rag=0.1", "--arms", "rag,prompt"
    )
    assert code == 0
    assert "always use" in said
    assert "'tuned'" in tenant_error(run, "decisions", "router", "support", "--arms", "rag,tuned")


def test_a_router_is_not_judged_on_another_use_cases_evaluation(tenant, evaluation):
    tenant.call("POST", "/api/v1/use-cases", "ml", json={"name": "other"})
    body = {"use_case": "other", "evaluation": evaluation[0]}
    reply = tenant.call("POST", "/api/v1/decisions/router", "ml", json=body)
    assert reply.status_code == 400, reply.text
    assert "is not of use case 'other'" in reply.json()["detail"]


def test_flips_are_timed_until_the_new_answer_comes(run, tenant, tmp_path):
    rows = [{"id": "new", "question": "What does the plan Number3 cost?", "answers": ["99 euros"]}]
    samples = write_jsonl(tmp_path / "changed.jsonl", rows)
    ask = ("eval", "flips", "support", "--samples", samples, "--arm", "rag")
    code, said, _ = run("--json", *ask, "--for", 0.2, "--every", 0.1)
    assert code == 1  # the old answer is still given
    assert json.loads(said)["flipped"] == 0
    page = "# Plan 3\n\nThe plan Number3 costs 99 euros a month.\n"
    assert tenant.upload("docs", {"plan3.md": page})["state"] == "succeeded"
    code, said, _ = run("--json", *ask, "--for", 20)
    made = json.loads(said)
    assert (code, made["flipped"]) == (0, 1)
    assert made["median_s"] == pytest.approx(made["seconds_by_question"]["new"], abs=0.01)
    assert made["steps"][0]["not_flipped"] == 0.0
    code, said, _ = run(*ask, "--for", 20)
    assert "1 of 1 questions flipped" in said


def test_eval_run_shows_its_plan_first_and_stops_there_when_asked(run, service):
    samples = service.folder / "plans.jsonl"
    command = ("eval", "run", "support", "--samples", samples, "--arms", "rag,prompt")
    code, said, _ = run(*command, "--margin", "0.2", "--looks", "3", "--plan")
    assert code == 0
    assert "smallest difference" in said
    assert "changed after the data were seen" in said
    code, said, _ = run("--json", *command, "--plan")
    made = json.loads(said)
    assert made["generations"] == 2 * len(ROWS)
    code, said, shown = run(*command, "--primary", "contains_answer")
    assert code == 0
    assert shown.index("make 48 answers") >= 0  # on stderr; the report is on stdout
    assert "# Evaluation of support" in said
