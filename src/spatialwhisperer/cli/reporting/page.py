"""The report of a slide: one HTML file that needs nothing but itself."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING, Any

from spatialwhisperer.cli.reporting.facts import percent
from spatialwhisperer.cli.reporting.tissue import tissue_section
from spatialwhisperer.cli.slides.marks import meta

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from spatialwhisperer.cli.reporting.facts import Facts
    from spatialwhisperer.cli.reporting.pictures import Picture

_STYLE = """
:root { color-scheme: light; --line: #d9dce1; --quiet: #5a6270; --ground: #f6f7f9; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 1rem 3rem; color: #1b1f24; background: #fff;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 .75rem; }
p { margin: .5rem 0; max-width: 46rem; overflow-wrap: anywhere; }
.quiet, figcaption, caption { color: var(--quiet); }
.figures { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.25rem 0; padding: 0; list-style: none; }
.figures li { flex: 1 1 9rem; padding: .6rem .9rem; background: var(--ground); border-radius: .5rem; }
.figures strong { display: block; font-size: 1.4rem; line-height: 1.3; }
.warning { margin: .75rem 0; padding: .6rem .9rem; border-left: .3rem solid #b85c00; background: #fdf3e7; border-radius: .25rem; }
.warning p { max-width: none; }
.pictures { display: grid; gap: 1.25rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 32rem), 1fr)); }
.scores { grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
figure { margin: 0; min-width: 0; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { margin-bottom: .25rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; padding-bottom: .35rem; }
th, td { padding: .35rem .6rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: anywhere; }
thead th { font-weight: 600; color: var(--quiet); overflow-wrap: normal; }
th { font-weight: normal; }
tbody th:has(.swatch) { padding-left: 1.5em; text-indent: -1.5em; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
thead .number { white-space: normal; }
.swatch { display: inline-block; width: .9em; height: .9em; margin-right: .5em; border-radius: .2em; vertical-align: -.08em;
  border: 1px solid rgb(0 0 0 / .25); }
.bar { width: 30%; min-width: 5rem; }
.bar span { display: block; height: .8em; margin-top: .35em; border-radius: .2em; min-width: 1px; }
.facts th { width: 30%; color: var(--quiet); }
@media (max-width: 40rem) { .bar { display: none; } .facts th { width: 38%; } }
@media print { .pictures figure, tr { break-inside: avoid; } }
"""

_GREY = "#b8b8b8"

_READING = (
    "A fraction counts tiles, not cells. Scores of one label tell where on the slide it fits best; scores of different labels have "
    "different offsets, so a single label can win most tiles. Look at the score pictures before you use the labels."
)


def render(facts: Facts, pictures: Sequence[Picture], *, seconds: float, request: Mapping[str, Any]) -> str:
    """The report as HTML.

    Parameters
    ----------
    facts
        What is known of the slide. Its texts may come from files, and are escaped.
    pictures
        Pictures of the slide; none where it has no image.
    seconds
        How long it took.
    request
        What the result was made of, by which the command recognises its report.
    """
    title = f"Labels of {facts.file}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="quiet">{escape(facts.model["name"])}. For research, not for diagnosis.</p>',
        _figures(facts),
        _warnings(facts),
        _pictures("Slide and labels", [p for p in pictures if p.kind != "score"], "pictures"),
        _no_picture(pictures),
        _labels(facts),
        _unlabelled(facts),
        tissue_section(facts.tissue, labelled_anyway=facts.parameters.get("unknown") == "label"),
        _pictures("Scores", [p for p in pictures if p.kind == "score"], "pictures scores"),
        _provenance(facts, seconds),
    ]
    body = "\n".join(part for part in parts if part)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{meta(request)}
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def _figures(facts: Facts) -> str:
    named = [label for label in facts.labels if label.n]
    cells = [
        (f"{facts.n_rows}", "rows (tiles, spots or cells)"),
        (percent(facts.n_labelled, facts.n_rows), "of them with a label"),
        (named[0].name if named else "none", "most frequent label"),
        (str(len(facts.warnings)), "warning" if len(facts.warnings) == 1 else "warnings"),
    ]
    return (
        '<ul class="figures">'
        + "".join(f"<li><strong>{escape(a)}</strong>{escape(b)}</li>" for a, b in cells)
        + "</ul>"
    )


def _warnings(facts: Facts) -> str:
    sentences = list(facts.warnings)
    if facts.few_labelled:
        none = facts.n_rows - facts.n_labelled
        sentences.insert(0, f"{none} of {facts.n_rows} rows have no label: {facts.reasons}.")
    if not sentences:
        return ""
    lines = "".join(f'<div class="warning"><p>{escape(sentence)}</p></div>' for sentence in sentences)
    return f"<section><h2>Warnings</h2>{lines}</section>"


def _pictures(title: str, pictures: Sequence[Picture], kind: str) -> str:
    if not pictures:
        return ""
    figures = "".join(
        f"<figure><figcaption>{escape(one.title)}</figcaption>"
        f'<img alt="{escape(one.alt)}" src="data:{one.media};base64,{base64.b64encode(one.content).decode("ascii")}"></figure>'
        for one in pictures
    )
    return f'<section><h2>{escape(title)}</h2><div class="{kind}">{figures}</div></section>'


def _no_picture(pictures: Sequence[Picture]) -> str:
    return "" if pictures else "<p>There are no pictures, because this object has no image whose pixels are known.</p>"


def _labels(facts: Facts) -> str:
    rows = "".join(
        f'<tr><th scope="row"><span class="swatch" style="background:{escape(label.colour)}"></span>{escape(label.name)}</th>'
        f'<td class="number">{label.n}</td><td class="number">{percent(label.n, facts.n_labelled)}</td>'
        f'<td class="bar">{_bar(label.n, facts.n_labelled, label.colour)}</td>'
        f'<td class="number">{"–" if not label.n else f"{label.confidence:.2f}"}</td></tr>'
        for label in facts.labels
    )
    none = facts.n_rows - facts.n_labelled
    if none:
        rows += (
            f'<tr><th scope="row"><span class="swatch" style="background:{_GREY}"></span>no label</th>'
            f'<td class="number">{none}</td><td class="number">–</td><td class="bar"></td><td class="number">–</td></tr>'
        )
    return (
        f"<section><h2>Labels</h2><p>{escape(_READING)}</p><table>"
        '<thead><tr><th scope="col">label</th><th scope="col" class="number">rows</th>'
        '<th scope="col" class="number">fraction</th><th class="bar"></th><th scope="col" class="number">confidence</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
        '<p class="quiet">Fraction: of the rows with a label. Confidence: mean over the rows of the label.</p></section>'
    )


def _bar(n: int, of: int, colour: str) -> str:
    return f'<span style="width:{100 * n / max(of, 1):.1f}%;background:{escape(colour)}"></span>' if n else ""


def _unlabelled(facts: Facts) -> str:
    none = facts.n_rows - facts.n_labelled
    if not none:
        return "<section><h2>Rows without a label</h2><p>Every row has a label.</p></section>"
    rows = "".join(
        f'<tr><th scope="row">{escape(reason)}</th><td class="number">{n}</td>'
        f'<td class="number">{percent(n, facts.n_rows)}</td></tr>'
        for reason, n in facts.unlabelled.items()
    )
    return (
        f"<section><h2>Rows without a label</h2><p>{none} of {facts.n_rows} rows have no label.</p><table>"
        '<thead><tr><th scope="col">why</th><th scope="col" class="number">rows</th>'
        f'<th scope="col" class="number">of all</th></tr></thead><tbody>{rows}</tbody></table></section>'
    )


def _provenance(facts: Facts, seconds: float) -> str:
    slide = {"file": facts.file, "result": facts.result}
    several = len(facts.images) > 1
    if facts.reading is not None:
        slide["reading"] = facts.reading
    slide |= {f"image of {name}" if several else "image": text for name, text in facts.images.items()}
    if several and facts.section is not None:
        slide["section in the pictures"] = facts.section
    run = {**facts.run, "took": f"{seconds:.1f} s"}
    tables = [
        ("Slide", slide),
        ("Model", facts.model),
        ("Command", run),
        ("Parameters of the annotation", facts.parameters),
        ("Versions", facts.versions),
    ]
    remarks = "".join(f"<li>{escape(line)}</li>" for line in facts.remarks)
    chosen = f"<h3>Remarks of the program</h3><ul>{remarks}</ul>" if remarks else ""
    return "<section><h2>How this was made</h2>" + "".join(_table(*one) for one in tables) + chosen + "</section>"


def _table(title: str, values: Mapping[str, str]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in values.items()
    )
    return f'<h3>{escape(title)}</h3><table class="facts"><tbody>{rows}</tbody></table>'
