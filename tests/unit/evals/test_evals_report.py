"""Reports: hostile text stays text, nothing is loaded, numbers are finite."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from evals.baselines import constant_answer
from evals.decision import decide
from evals.decision_spec import DecisionSpec, max_p95_latency, min_right_citation
from evals.errors import EvalError
from evals.evaluation import IntervalSettings, evaluate
from evals.report import Section, render_report, to_json, to_markdown
from evals.sections import flatten

EVIL = '<script>alert(1)</script><img src=x onerror="x">"\'&</textarea>\u202e\x00\ud800'
VOID = {"meta", "rect", "line", "circle", "polyline", "img", "br"}


class Page(HTMLParser):
    """Collects tags and attributes, and checks that they nest."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.open = set(), [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_failures_and_an_exploratory_decision_are_seen_at_once(world):
    made = world({"prompt": 0.1, "hybrid": 0.9}, n=120)
    outputs = [
        replace(o, error="down") if o.arm == "hybrid" and o.sample_id < "q0003" else o
        for o in made.outputs
    ]
    evaluation = evaluate(made.samples, outputs, settings=IntervalSettings(resamples=100))
    planned = decide(evaluation, DecisionSpec())
    unplanned = decide(evaluation, DecisionSpec(), exploratory=("This is look 2.",))
    pages = [render_report(evaluation, d) for d in (planned, unplanned)]
    assert ["EXPLORATORY" in page for page in pages] == [False, True]
    assert all("3 failed" in page for page in pages)
    text = to_markdown(evaluation, unplanned)
    assert "exploratory" in text.split("##")[0]
    assert "This is look 2." in text
    assert "120 (3 failed)" in text


def made_report(world, evil="", quality=None, **options):
    made = world(quality or {"prompt": 0.1, "rag": 0.5, "hybrid": 0.8}, n=120, **options)
    samples = [replace(s, question=s.question + evil, tags=(f"tag{evil}",)) for s in made.samples]
    outputs = [
        replace(
            o,
            text=o.text + evil,
            citations=(f"cite{evil}",),
            meta={"passages": [{"id": f"p{evil}", "text": f"text {evil}"}]},
        )
        for o in made.outputs
    ]
    constant = constant_answer(samples)
    outputs += [constant(sample) for sample in samples]
    evaluation = evaluate(
        samples, outputs, baselines=("constant",), settings=IntervalSettings(resamples=100)
    )
    spec = DecisionSpec(constraints=(max_p95_latency(1.0), min_right_citation(0.0)))
    sections = [
        Section(
            f"Freshness{evil}", ("fact", "before", "after"), ((evil or "x", 1.5, None),), "note"
        )
    ]
    return (
        evaluation,
        decide(evaluation, spec),
        {"title": f"T{evil}", "run": {"seed": 1, "x": [evil]}},
        sections,
    )


def test_the_page_is_well_formed_and_loads_and_runs_nothing(world):
    evaluation, decision, manifest, sections = made_report(world)
    html = render_report(evaluation, decision, manifest=manifest, extra_sections=sections)
    page = Page(html)
    assert page.open == []
    assert not page.tags & {
        "script",
        "link",
        "iframe",
        "img",
        "object",
        "embed",
        "base",
        "form",
        "a",
    }
    names = {name for name, _ in page.attributes}
    assert not {name for name in names if name.startswith("on")} | names & {"src", "href"}
    assert "http" not in html.replace("http-equiv", "")
    assert "url(" not in html
    assert "@import" not in html
    assert not re.search(r"\bnan\b|\binf\b", html.split("</style>")[1], re.IGNORECASE)


def test_the_page_shows_the_decision_arms_pictures_and_sections(world):
    evaluation, decision, manifest, sections = made_report(world)
    html = render_report(evaluation, decision, manifest=manifest, extra_sections=sections)
    for text in (
        "WINNER", "Serve hybrid", "constant", "Freshness", "Slices", "Failures", "Limits",
        "Independence of the questions", evaluation.samples_digest, decision.spec_digest,
        "right citation at least 0", "run.seed", "Why",
    ):  # fmt: skip
        assert text in html
    assert html.count("<svg") == 4  # differences are drawn for wide and for narrow pages


def test_hostile_documents_cannot_add_a_tag_or_attribute(world):
    plain = Page(_render(made_report(world)))
    html = _render(made_report(world, EVIL))
    evil = Page(html)
    assert evil.open == []
    assert evil.tags == plain.tags
    assert {n for n, _ in evil.attributes} == {n for n, _ in plain.attributes}
    assert "<script" not in html
    assert "\u202e" not in html
    assert "\x00" not in html
    html.encode("utf-8")


def test_hostile_text_cannot_form_markdown_or_html_in_the_markdown(world):
    evil = EVIL + "\n# heading\n| a | b |\n[x](http://y)"
    evaluation, decision, manifest, sections = made_report(world, evil)
    text = to_markdown(evaluation, decision, manifest=manifest, extra_sections=sections)
    assert "<script" not in text.replace("\\<", "")
    assert "\n# heading" not in text
    assert "[x](" not in text
    text.encode("utf-8")
    tables = [line for line in text.split("\n") if line.startswith("| ")]
    assert len({line.replace("\\|", "").count("|") for line in tables if "tag" in line}) == 1


def test_markdown_holds_the_same_decision_and_numbers(world):
    evaluation, decision, manifest, sections = made_report(world)
    text = to_markdown(evaluation, decision, manifest=manifest, extra_sections=sections)
    assert text.startswith("# T\n")
    assert f"**{decision.status}.** {decision.headline}" in text
    f1 = evaluation.arm("hybrid").metrics["token_f1"].estimate
    assert f"| hybrid (chosen) | {f1:.3f} (" in text
    assert "| constant (baseline) |" in text


def test_json_has_a_version_and_finite_numbers_and_repeats(world):
    parts = made_report(world, EVIL)
    evaluation, decision, manifest, sections = parts
    text = to_json(evaluation, decision, manifest=manifest, extra_sections=sections)
    record = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert record["schema_version"] == 1
    assert record["decision"]["choice"] == decision.choice
    assert len(record["evaluation"]["arms"]) == 4
    assert text == to_json(evaluation, decision, manifest=manifest, extra_sections=sections)
    with pytest.raises(EvalError, match="finite"):
        to_json(evaluation, decision, manifest={"x": float("inf")})
    with pytest.raises(EvalError, match="type object"):
        to_json(evaluation, decision, manifest={"x": object()})


@pytest.mark.parametrize(
    ("quality", "options", "status"),
    [
        ({"prompt": 0.5, "rag": 0.52}, {}, "UNDECIDED"),
        ({"prompt": 0.5, "rag": 0.6}, {"latency_s": {"prompt": 9, "rag": 9}}, "INFEASIBLE"),
        ({"rag": 0.6}, {}, "WINNER"),
    ],
)
def test_every_status_renders(world, quality, options, status):
    evaluation, decision, manifest, sections = made_report(world, quality=quality, **options)
    assert decision.status == status
    html = render_report(evaluation, decision, manifest=manifest, extra_sections=sections)
    assert Page(html).open == []
    assert f'<span class="pill {status}">' in html
    assert status in to_markdown(evaluation, decision)


def test_a_report_of_one_sample_with_nothing_scored_renders(world):
    made = world({"prompt": 0.5, "rag": 0.5}, n=1)
    outputs = [replace(o, error="down") for o in made.outputs]
    evaluation = evaluate(made.samples, outputs, settings=IntervalSettings(resamples=10))
    decision = decide(evaluation, DecisionSpec(constraints=(max_p95_latency(1.0),)))
    assert decision.status == "INFEASIBLE"
    assert Page(render_report(evaluation, decision)).open == []
    json.loads(to_json(evaluation, decision))


def test_a_section_with_uneven_rows_is_refused():
    with pytest.raises(EvalError, match="2 columns but a row of 1"):
        Section("S", ("a", "b"), (("x",),))


def test_nested_manifests_are_flattened_in_order():
    rows = flatten({"b": {"x": 1, "y": [1, 2]}, "a": [{"z": None}]})
    assert rows == [("b.x", "1"), ("b.y", "1, 2"), ("a[0].z", "")]


def _render(parts):
    evaluation, decision, manifest, sections = parts
    return render_report(evaluation, decision, manifest=manifest, extra_sections=sections)
