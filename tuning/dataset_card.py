"""The card of a dataset snapshot: one self-contained HTML page with pictures, light and dark."""

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tuning.charts import bars, histogram, stacked_bars
from tuning.dataset_flags import find_flags
from tuning.snapshot import CITE, KINDS, SPLITS, Row, Snapshot

_CSS = """
:root{--bg:#f5f6f8;--card:#fff;--ink:#171c26;--soft:#5a6475;--line:#e0e4ea;--faint:#f0f2f5;
--good:#0c7a50;--goodbg:#ddf3e8;--wait:#8a5a00;--waitbg:#fdf0d2;
--c0:#4a55d8;--c1:#0f8f86;--c2:#c98a1b;--c3:#a3479b;--c4:#7c8aa0}
@media (prefers-color-scheme:dark){:root{--bg:#10141b;--card:#181e28;--ink:#e8ecf3;--soft:#98a3b5;
--line:#2b3442;--faint:#1f2733;--good:#55d3a0;--goodbg:#123528;--wait:#f0bd55;--waitbg:#3b2c0c;
--c0:#8b95ff;--c1:#3cc4b9;--c2:#e6ac45;--c3:#d983d0;--c4:#94a3ba}}
*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;
font-variant-numeric:tabular-nums}main{max-width:1120px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:25px;letter-spacing:-.02em;margin:0 0 2px;overflow-wrap:anywhere}
h2{font-size:17px;margin:0 0 6px}p{margin:6px 0}.soft{color:var(--soft)}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:18px 20px;
margin:0 0 16px;min-width:0}.two{display:grid;grid-template-columns:1fr 1fr;gap:16px}
.two>div{min-width:0}
@media(max-width:820px){.two{grid-template-columns:1fr}}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:10px;
margin-top:14px}.tile{background:var(--faint);border-radius:10px;padding:9px 13px}
.tile b{display:block;font-size:21px}.tile span{color:var(--soft);font-size:12.5px}
ul.flags{list-style:none;padding:0;margin:14px 0 0}ul.flags li{background:var(--waitbg);
color:var(--wait);border-radius:8px;padding:7px 12px;margin:0 0 6px}
ul.flags li.good{background:var(--goodbg);color:var(--good)}
svg{display:block;width:100%;height:auto}svg text{fill:var(--ink);font:12px system-ui,sans-serif}
svg text.soft{fill:var(--soft)}svg .axis{stroke:var(--line)}
.c0{fill:var(--c0)}.c1{fill:var(--c1)}.c2{fill:var(--c2)}.c3{fill:var(--c3)}.c4{fill:var(--c4)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:13.5px}
th{color:var(--soft);font-size:12px;text-align:left}
th,td{padding:6px 12px 6px 0;border-bottom:1px solid var(--line);vertical-align:top;
overflow-wrap:anywhere}td.n{text-align:right;white-space:nowrap}
tr:last-child td{border-bottom:0}code{font-size:12.5px;overflow-wrap:anywhere}
"""
_MOST_BARS, _MOST_ROWS = 12, 25


def render_dataset_card(snapshot: Snapshot, findings: Sequence[Mapping[str, Any]] = ()) -> str:
    """The card's HTML; every number comes from the snapshot itself.

    Args:
        snapshot: The verified snapshot.
        findings: What `quality.jsonl` holds: id, score and findings of every example looked at,
            those that were left out as well.
    """
    rows = snapshot.rows
    body = [
        _head(snapshot),
        _two(_splits(rows) + _lengths(rows), _sources(rows)),
        _two(_quality(findings), _problems(snapshot, findings)),
        _two(_leakage(snapshot), _traffic(snapshot) + _balance(rows)),
        _worst(findings),
        _refused(snapshot),
    ]
    title = f"Dataset {snapshot.manifest.id[:12]}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{title}</title><style>{_CSS}</style></head><body><main>"
        f"{''.join(body)}</main></body></html>\n"
    )


def _head(snapshot: Snapshot) -> str:
    manifest = snapshot.manifest
    flags = find_flags(manifest)
    said = "".join(f'<li data-flag="{flag.kind}">{_e(flag.sentence)}</li>' for flag in flags)
    if not flags:
        said = '<li class="good">Nothing was found that speaks against training on it.</li>'
    refused = manifest.provenance.get("refused", [])
    mean = manifest.quality.get("mean_score")
    tiles = [
        (f"{manifest.rows:,}", "rows"),
        (f"{manifest.audit.get('components', '-')}", "independent components"),
        (f"{len(refused):,}", "examples left out"),
        ("-" if mean is None else f"{mean:.2f}", "mean quality score"),
        ("signed" if manifest.signature else "not signed", manifest.created[:10]),
    ]
    shown = "".join(f'<div class="tile"><b>{_e(a)}</b><span>{_e(b)}</span></div>' for a, b in tiles)
    name = manifest.provenance.get("use_case") or manifest.provenance.get("source") or ""
    return (
        f'<section class="card"><h1>Dataset {manifest.id[:12]}</h1>'
        f'<p class="soft">{_e(str(name))} · <code>{manifest.id}</code></p>'
        f'<ul class="flags">{said}</ul><div class="tiles">{shown}</div></section>'
    )


def _splits(rows: Sequence[Row]) -> str:
    counts: Counter[tuple[str, str]] = Counter((row["split"], row["kind"]) for row in rows)
    values = {
        split: {kind: float(counts[split, kind]) for kind in KINDS if counts[split, kind]}
        for split in SPLITS
        if any(counts[split, kind] for kind in KINDS)
    }
    return _card("Splits and kinds", stacked_bars("Rows by split and kind", values))


def _sources(rows: Sequence[Row]) -> str:
    documents: Counter[str] = Counter()
    for row in rows:
        documents.update((row.get("provenance") or {}).get("sources") or [])
    by = {
        name: Counter(str((row.get("provenance") or {}).get(name) or "not said") for row in rows)
        for name in ("source_type", "consent", "author")
    }
    parts = [
        ("Documents", bars("Rows by document", _top(documents))),
        ("Kind of source", bars("Rows by kind of source", _top(by["source_type"]))),
        ("Right to train on it", bars("Rows by consent", _top(by["consent"]))),
        ("Authors", bars("Rows by author", _top(by["author"]))),
    ]
    return _card("Sources", "".join(f"<p class=soft>{n}</p>{svg}" for n, svg in parts if svg))


def _lengths(rows: Sequence[Row]) -> str:
    questions = [len(row["question"].split()) for row in rows]
    answers = [len(row["answer"].replace(CITE, "").split()) for row in rows]
    return _card(
        "Lengths",
        histogram("Words per question", questions, unit="words of the question")
        + histogram("Words per answer", answers, unit="words of the answer"),
    )


def _balance(rows: Sequence[Row]) -> str:
    answers = Counter(" ".join(row["answer"].replace(CITE, "").split()) for row in rows)
    repeated = {answer: n for answer, n in answers.most_common(_MOST_BARS) if n > 1}
    if not repeated:
        return _card("Class balance", "<p>No answer occurs twice: the task has no classes.</p>")
    share = sum(n for n in answers.values() if n > 1) / len(rows)
    note = (
        f"<p class=soft>{len(answers):,} distinct answers; {share:.0%} of the rows repeat one.</p>"
    )
    return _card("Class balance", note + bars("Rows by answer", repeated))


def _quality(findings: Sequence[Mapping[str, Any]]) -> str:
    if not findings:
        return _card("Quality", "<p>The rows were not assessed.</p>")
    scores = [float(entry["score"]) for entry in findings]
    note = "<p class=soft>1 is without a finding; examples that were left out are among them.</p>"
    picture = histogram("Quality scores", scores, unit="quality score", whole=False)
    return _card("Quality", note + picture)


def _problems(snapshot: Snapshot, findings: Sequence[Mapping[str, Any]]) -> str:
    counts = snapshot.manifest.quality.get("findings", {})
    if not counts:
        return _card("Findings", "<p>None.</p>")
    values = {name.replace("_", " "): n for name, n in sorted(counts.items(), key=lambda x: -x[1])}
    note = f"<p class=soft>Of {len(findings):,} examples looked at, duplicates among them.</p>"
    return _card("Findings", note + bars("Examples by finding", values))


def _leakage(snapshot: Snapshot) -> str:
    audit = snapshot.manifest.audit
    lines = [
        ("Held-out rows", audit.get("held_out_rows")),
        ("with a training question", audit.get("held_out_questions_equal_to_train")),
        ("with 13 words of a training row", audit.get("held_out_rows_sharing_13_words_with_train")),
        (
            "with a training answer, such as a canned one",
            audit.get("held_out_rows_with_a_train_answer"),
        ),
        (
            "with a training template (values blanked)",
            audit.get("held_out_questions_from_a_train_template"),
        ),
        ("Passages in train and held out", audit.get("gold_passages_in_train_and_held_out")),
        (
            "Training rows that show a held-out passage",
            audit.get("train_rows_showing_held_out_gold"),
        ),
        (
            "Held-out passages taken out of training rows",
            audit.get("held_out_distractors_dropped"),
        ),
        ("Rows held out by an earlier snapshot", audit.get("pinned")),
    ]
    table = "".join(
        f"<tr><td>{_e(name)}</td><td class=n>{value:,}</td></tr>"
        for name, value in lines
        if value is not None
    )
    return _card("Leakage", f"{_premium(audit)}<div class=scroll><table>{table}</table></div>")


def _premium(audit: Mapping[str, Any]) -> str:
    premium, near = audit.get("leak_premium"), audit.get("nearness")
    text = ""
    if premium:
        text += (
            "<p>Copying the answer of the nearest training question scores F1 "
            f"{premium['random_split']:.2f} on a random split and "
            f"{premium['component_split']:.2f} on this kind of split: a leak premium of "
            f"<b>{premium['premium']:+.2f}</b> ({premium['low']:+.2f} to {premium['high']:+.2f})."
            "</p>"
        )
        if premium.get("shown_at_random") is not None:
            text += (
                "<p>Training rows show the passage of "
                f"{premium['shown_at_random']:.0%} of the held-out rows on a random split, of "
                f"{premium['shown_by_component']:.0%} on this kind of split.</p>"
            )
    if near:
        text += (
            "<p class=soft>Nearest training question: median cosine "
            f"{near['median']:.2f}, highest {near['highest']:.2f}.</p>"
        )
    return text


def _traffic(snapshot: Snapshot) -> str:
    coverage = snapshot.manifest.quality.get("coverage")
    if not coverage:
        return _card("Coverage of real questions", "<p>No questions were asked yet.</p>")
    values = {
        (cluster["examples"] or ["?"])[0]: {
            "asked": cluster["traffic_share"],
            "trained": cluster["rows_share"],
        }
        for cluster in coverage["clusters"][:_MOST_BARS]
    }
    rows = "".join(
        f"<tr><td>{_e(name)}</td><td class=n>{part['asked']:.0%}</td>"
        f"<td class=n>{part['trained']:.0%}</td></tr>"
        for name, part in values.items()
    )
    return _card(
        "Coverage of real questions",
        f"<p>{coverage['covered']:.0%} of the questions asked have a row near them (cosine "
        f"{coverage['near']:g}).</p><div class=scroll><table><tr><th>questions like</th>"
        f"<th>asked</th><th>rows</th></tr>{rows}</table></div>",
    )


def _worst(findings: Sequence[Mapping[str, Any]]) -> str:
    worst = sorted((e for e in findings if e["findings"]), key=lambda e: (e["score"], e["id"]))
    if not worst:
        return ""
    rows = "".join(
        f"<tr><td class=n>{entry['score']:.2f}</td><td><code>{_e(str(entry['id']))}</code></td>"
        f"<td>{_e('; '.join(f['reason'] for f in entry['findings']))}</td></tr>"
        for entry in worst[:_MOST_ROWS]
    )
    more = len(worst) - _MOST_ROWS
    tail = f"<p class=soft>and {more:,} more</p>" if more > 0 else ""
    head = "<tr><th>score</th><th>example</th><th>why</th></tr>"
    return _card("Lowest scores", f"<div class=scroll><table>{head}{rows}</table></div>{tail}")


def _refused(snapshot: Snapshot) -> str:
    refused = snapshot.manifest.provenance.get("refused") or []
    if not isinstance(refused, list) or not refused:
        return ""
    rows = "".join(
        f"<tr><td><code>{_e(str(entry.get('example', '')))}</code></td>"
        f"<td>{_e(str(entry.get('reason', '')))}</td></tr>"
        for entry in refused[:_MOST_ROWS]
    )
    more = len(refused) - _MOST_ROWS
    tail = f"<p class=soft>and {more:,} more</p>" if more > 0 else ""
    return _card("Left out", f"<div class=scroll><table>{rows}</table></div>{tail}")


def _top(counts: Counter[str]) -> dict[str, float]:
    return {name: float(n) for name, n in counts.most_common(_MOST_BARS)}


def _two(first: str, second: str) -> str:
    return f'<div class="two"><div>{first}</div><div>{second}</div></div>'


def _card(title: str, body: str) -> str:
    return f'<section class="card"><h2>{_e(title)}</h2>{body}</section>'


def _e(text: str) -> str:
    return html.escape(text, quote=True)
