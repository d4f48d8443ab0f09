"""Outputs of a world from any generator: cited passages, abstention, one line per prompt."""

from benchmarks.worlds_run import answer
from evals.outputs import parse_output


def test_texts_become_outputs_with_citations_by_passage(tmp_path):
    import json

    passages = [{"id": f"p{i}", "title": "T", "text": f"Text {i}"} for i in range(3)]
    rows = [
        {"id": "a", "question": "What?", "passages": passages, "adapter": None},
        {"id": "b", "question": "Why?", "passages": [], "adapter": None},
    ]
    seen = []

    def generate(prompts):
        seen.extend(prompts)
        return ["Text 1 [2] [2] [9]", "I could not find this in the knowledge base."]

    target = tmp_path / "outputs" / "rag.jsonl"
    answer(rows, "rag", target, generate)
    first, second = [parse_output(json.loads(line)) for line in target.open()]
    assert (first.citations, first.retrieved, first.abstained) == (
        ("p1",),
        ("p0", "p1", "p2"),
        False,
    )
    assert (second.arm, second.citations, second.abstained) == ("rag", (), True)
    assert "[2] T\nText 1" in seen[0][-1]["content"]
    assert seen[1][-1]["content"] == "Why?"
