"""Trees as pages of their own: one for a tree, and an overview that links to many.

A page holds no script and asks for nothing; its content security policy allows its own style and
nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from ds_jax.report.text import duration, or_dash, shorten
from ds_jax.report.tree_style import TREE_STYLE
from ds_jax.report.tree_view import (
  MAX_ANSWER,
  SIGNS,
  is_graded,
  shown_text,
  tree_section,
  word_badge,
)

_PAGE_STYLE = """
body { margin: 0 auto; padding: .6rem .8rem 3rem; max-width: 100rem; background: var(--paper);
  color: var(--ink); }
.way { margin: 0; padding: .3rem .6rem; font: .88rem system-ui, sans-serif; display: flex;
  gap: 1.2rem; }
"""
_OVERVIEW_STYLE = """
.ds-trees { font: .92rem/1.45 system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; }
.ds-trees h1 { font-size: 1.4rem; margin: .6rem 0 .2rem; }
.ds-trees .wide { overflow-x: auto; }
.ds-trees table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
.ds-trees th, .ds-trees td { text-align: left; vertical-align: top; padding: .3rem .9rem .3rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
.ds-trees th { color: var(--muted); font-weight: 500; font-size: .82rem; white-space: nowrap; }
.ds-trees .number { text-align: right; white-space: nowrap; }
.ds-trees .question { min-width: 14rem; }
.ds-trees label { margin-right: 1.2rem; cursor: pointer; white-space: nowrap; }
.ds-trees:has(#only-right:checked) tbody tr:not(.right) { display: none; }
.ds-trees:has(#only-wrong:checked) tbody tr:not(.wrong) { display: none; }
"""


def tree_page(row: Mapping[str, Any], *, links: Mapping[str, str] | None = None) -> str:
  """Returns the page of one tree.

  Args:
    row: see tree_view.tree_fragment.
    links: addresses of other pages by what a link says; they stand at the top.
  """
  anchors = ''
  for text, address in (links or {}).items():
    anchors += f'<a href="{shown_text(address)}">{shown_text(text)}</a>'
  way = f'<p class="ds-tree way">{anchors}</p>\n' if anchors else ''
  title = f'tree of {shorten(row["tree"]["problem_id"], MAX_ANSWER)}'
  return _document(
    title, f'{way}{tree_section(row, name="tree")}', style=TREE_STYLE + _PAGE_STYLE, kind='ds-page'
  )


def overview_page(
  rows: Sequence[Mapping[str, Any]], addresses: Sequence[str], *, title: str
) -> str:
  """Returns a page with a line for each tree, which links to its page.

  Args:
    rows: lines of the output of `ds-jax search`.
    addresses: of their pages, relative to this one.
    title: of the page.
  """
  head = ('', 'problem', 'question', 'answer', 'right answer')
  numbers = ('right/ends', 'collected', 'expansions', 'nodes', 'time')
  cells = [f'<th scope="col">{name}</th>' for name in head]
  cells += [f'<th scope="col" class="number">{name}</th>' for name in numbers]
  lines = [_line(*pair) for pair in zip(rows, addresses, strict=True)]
  body = (
    f'<main class="ds-tree ds-trees"><h1>{shown_text(title)}</h1>\n{_choice(rows)}\n'
    f'<div class="wide"><table>\n<thead><tr>{"".join(cells)}</tr></thead>\n<tbody>\n'
    + '\n'.join(lines)
    + '\n</tbody>\n</table></div></main>'
  )
  style = TREE_STYLE + _PAGE_STYLE + _OVERVIEW_STYLE
  return _document(title, body, style=style, kind='ds-page')


def _choice(rows: Sequence[Mapping[str, Any]]) -> str:
  """Which lines are shown: all, or those of trees that were solved, or not."""
  counts = {'': len(rows), 'right': 0, 'wrong': 0}
  for row in rows:
    if is_graded(row['tree']):
      counts[_state(row)] += 1
  names = {'': 'all', 'right': 'solved', 'wrong': 'not solved'}
  labels = []
  for state, name in names.items():
    checked = '' if state else ' checked'
    labels.append(
      f'<label><input type="radio" name="only" id="only-{state or "all"}"{checked}> '
      f'{name} ({counts[state]:,})</label>'
    )
  return f'<p>{"".join(labels)}</p>'


def _state(row: Mapping[str, Any]) -> str:
  if not is_graded(row['tree']):
    return 'open'
  return 'right' if row['tree']['is_solved'] else 'wrong'


def _line(row: Mapping[str, Any], address: str) -> str:
  tree, state = row['tree'], _state(row)
  root = tree['nodes'][0]
  badge = {'right': 'correct', 'wrong': 'wrong', 'open': 'ungraded'}[state]
  selected = row.get('selected') or {}
  texts = (
    (row.get('question'), 2 * MAX_ANSWER),
    (selected.get('answer'), MAX_ANSWER),
    (row.get('gold'), MAX_ANSWER),
  )
  question, answer, gold = (
    or_dash(text, lambda text, limit=limit: shown_text(shorten(str(text), limit)))
    for text, limit in texts
  )
  seconds = (row.get('table') or {}).get('time_per_tree')
  numbers = (
    f'{root["num_correct"]:,}/{root["num_ends"]:,}',
    f'{len(tree["collected"]):,}',
    or_dash(tree['statistics'].get('expansions'), '{:,}'.format),
    f'{len(tree["nodes"]):,}',
    or_dash(seconds, duration),
  )
  cells = [
    word_badge(badge, SIGNS[badge]),
    f'<a href="{shown_text(address)}">{shown_text(shorten(tree["problem_id"], MAX_ANSWER))}</a>',
  ]
  cells += [f'<code>{answer}</code>', f'<code>{gold}</code>']
  line = ''.join(f'<td>{cell}</td>' for cell in cells[:2])
  line += f'<td class="question">{question}</td>'
  line += ''.join(f'<td>{cell}</td>' for cell in cells[2:])
  line += ''.join(f'<td class="number">{cell}</td>' for cell in numbers)
  return f'<tr class="{state}">{line}</tr>'


def _document(title: str, body: str, *, style: str, kind: str) -> str:
  """Returns a whole page. Its policy names the one style by its hash, so no other applies."""
  digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
  policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
  return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{shown_text(title)}</title>
<style>{style}</style>
</head>
<body class="{kind}">
{body}
</body>
</html>
"""
