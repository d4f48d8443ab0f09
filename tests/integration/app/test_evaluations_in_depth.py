"""Evaluations over HTTP and the command line: hidden gold, repeats, rerun, corrections, gate."""

import json
from pathlib import Path

import pytest
from factories import write_jsonl

ROWS = [
    ("ripple", "What does the Ripple plan cost a month?", "49 euros", "plans.md"),
    ("torrent", "What does the Torrent plan cost a month?", "79 euros", "plans.md"),
    ("helmet", "How long can a helmet be returned after delivery?", "21 days", "returns.md"),
    ("hours", "When does the workshop in Harbour Street open?", "8:30", "hours.txt"),
]


@pytest.fixture(scope="module")
def tenant(service):
    return service.furnished()


@pytest.fixture(scope="module")
def samples(tenant, service):
    found = tenant.call("GET", "/api/v1/knowledge-bases/docs/documents").json()
    named = [row["document"] for row in found]
    rows = [
        {"id": i, "question": q, "answers": [a], "gold": [next(d for d in named if gold in d)]}
        for i, q, a, gold in ROWS
    ]
    return write_jsonl(service.folder / "depth.jsonl", rows)


@pytest.fixture(scope="module")
def run(tenant, service, samples):
    def start(**options):
        body = {"use_case": "support", "samples": str(samples), "arms": ["rag"], **options}
        reply = service.operator_in(tenant, "POST", "/api/v1/evaluations", json=body)
        assert reply.status_code == 202, reply.text
        job = tenant.wait(reply.json()["id"])
        assert job["state"] == "succeeded", job
        folder = Path(job["result"]["path"])
        result = json.loads((folder / "result.json").read_text())
        return reply.json()["evaluation"], folder, result

    return start


@pytest.fixture(scope="module")
def first(run):
    return run(costs={"per_machine_hour": 2.0, "once": {"rag": 1.0}})


def outputs_of(folder):
    return [json.loads(line) for line in (folder / "outputs.jsonl").open()][1:]


def test_a_run_writes_all_files_and_three_baselines(first, tenant):
    evaluation, folder, result = first
    arms = {arm["arm"] for arm in result["evaluation"]["arms"]}
    assert arms == {"rag", "constant answer", "best sentence", "BM25 and template"}
    titles = {section["title"] for section in result["sections"]}
    assert {"Retrieval", "Time and tokens", "Cost"} <= titles
    scores = json.loads((folder / "scores.json").read_text())
    assert scores["samples"] == [row[0] for row in sorted(ROWS)]
    page = tenant.call("GET", f"/api/v1/evaluations/{evaluation}/report").text
    assert "tandem eval run --manifest manifest.json" in page


def test_twins_ask_every_question_with_and_without_its_documents(run):
    _, folder, result = run(hidden_twins=True)
    lines = [json.loads(line) for line in (folder / "samples.jsonl").open()]
    gold = {line["id"]: line["gold"][0] for line in lines}
    assert len(lines) == 2 * len(ROWS)
    asked = [o for o in outputs_of(folder) if o["arm"] == "rag"]
    for output in asked:
        seen = gold[output["sample_id"]] in output["retrieved"]
        assert not (seen and output["sample_id"].endswith("#hidden"))
    assert any(gold[o["sample_id"]] in o["retrieved"] for o in asked)
    audit = result["evaluation"]["audit"]
    assert (audit["answerable"], audit["unanswerable"]) == (4, 4)


def test_a_run_with_gold_hidden_scores_refusing_as_right_and_decides_when_named(run, tenant, first):
    evaluation, _, result = run(remove_gold=True)
    (rag,) = [arm for arm in result["evaluation"]["arms"] if arm["arm"] == "rag"]
    assert result["evaluation"]["primary"] == "abstention"
    assert "over_refusal" not in rag["metrics"]
    assert rag["metrics"]["abstention"]["n"] == len(ROWS)
    url, body = "/api/v1/decisions", {"use_case": "support", "apply": False}
    assert tenant.call("POST", url, "ml", json=body).json()["evaluation"] != evaluation
    named = tenant.call("POST", url, "ml", json=body | {"evaluation": evaluation})
    assert named.json()["record"]["spec"]["primary"] == "abstention"
    again = tenant.call("POST", f"/api/v1/decisions/{named.json()['id']}/replay").json()
    assert again == {"identical": True, "differences": []}


def test_sampled_repeats_are_kept_and_split(run, samples, tenant, service):
    _, folder, result = run(repeats=2, temperature=0.7)
    kept = [(o["sample_id"], o.get("repeat", 0)) for o in outputs_of(folder) if o["arm"] == "rag"]
    assert sorted(kept) == sorted((row[0], repeat) for row in ROWS for repeat in (0, 1))
    assert "Repeated answers" in {section["title"] for section in result["sections"]}


def test_a_manifest_runs_again_word_for_word(first, run, tenant):
    _, folder, _ = first
    manifest = json.loads((folder / "manifest.json").read_text())
    options = {name: manifest[name] for name in ("arms", "primary", "spec") if name in manifest}
    _, _, repeated = run(samples=str(folder / manifest["samples"]), **options)
    assert repeated["manifest"]["texts_sha256"] == manifest["texts_sha256"]
    assert repeated["manifest"]["samples_used_before"] >= 1


def test_a_run_after_a_change_shows_freshness(first, run):
    before, _, _ = first
    _, _, result = run(before=before)
    (fresh,) = [s for s in result["sections"] if s["title"] == "Freshness"]
    assert fresh["rows"][0][0] == "rag"


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        ({"remove_gold": True, "hidden_twins": True}, 400, "choose one of"),
        ({"repeats": 3}, 400, "temperature above 0"),
        ({"before": "nothing"}, 404, "'nothing'"),
        ({"costs": {"per_hour": 1}}, 400, "'per_hour'"),
        ({"costs": {"per_machine_hour": -1}}, 400, "per_machine_hour"),
        ({"samples_format": "squad"}, 400, "JSON"),
        ({"samples_format": "parquet"}, 422, "samples_format"),
    ],
)
def test_options_that_cannot_be_used_are_refused_before_the_run(
    tenant, service, samples, change, status, said
):
    body = {"use_case": "support", "samples": str(samples), "arms": ["rag"]}
    reply = service.operator_in(tenant, "POST", "/api/v1/evaluations", json=body | change)
    assert reply.status_code == status, reply.text
    assert said in reply.text


def test_approved_corrections_become_samples(tenant, service):
    none = tenant.call("GET", "/api/v1/evaluations/samples/support", "ml")
    assert none.status_code in (400, 403)
    asked = tenant.ask("support", "What is the Ripple price?").json()["tandem"]["answer_id"]
    text = "The Ripple plan costs 49 euros a month!"
    body = {"answer_id": asked, "rating": "down", "correction": text}
    review = tenant.call("POST", "/api/v1/feedback", "client", json=body).json()["review"]
    path = f"/api/v1/reviews/{review}"
    made = tenant.call("POST", path, "reviewer", json={"decision": "approve"})
    assert made.json()["state"] == "approved", made.text
    reply = service.operator_in(tenant, "GET", "/api/v1/evaluations/samples/support")
    assert reply.status_code == 200, reply.text
    (row,) = reply.json()
    assert row["question"] == "What is the Ripple price?"
    assert row["answers"] == [text]
    assert "plans.md" in row["gold"][0]
    other = service.furnished()
    alien = service.operator_in(other, "GET", "/api/v1/evaluations/samples/support")
    assert alien.status_code == 400
    assert "no approved correction" in alien.text
