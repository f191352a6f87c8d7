"""Trees as pages of their own: one for a tree, and an overview that links to many.

A page holds no script and asks for nothing; its content security policy allows its own style and
nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from ds_jax.report.document import html_document
from ds_jax.report.text import duration, escaped, number, or_dash, shorten
from ds_jax.report.tree_signs import (
  MAX_ANSWER,
  SIGNS,
  answer_text,
  correctness,
  is_graded,
  word_badge,
)
from ds_jax.report.tree_style import TREE_STYLE
from ds_jax.report.tree_view import tree_section

MAX_QUESTION = 200  # characters of one in the overview
# Stands in the head of every page, so that we know ours.
GENERATOR = '<meta name="generator" content="ds-jax search">'

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
.ds-trees td:nth-child(2) { min-width: 14rem; max-width: 34rem; }
.ds-trees label { margin-right: 1.2rem; cursor: pointer; white-space: nowrap; }
.ds-trees:has([value="solved"]:checked) tbody tr:not(.correct) { display: none; }
.ds-trees:has([value="not solved"]:checked) tbody tr:not(.wrong) { display: none; }
"""


def tree_page(row: Mapping[str, Any], *, links: Mapping[str, str] | None = None) -> str:
  """Returns the page of one tree.

  Args:
    row: see tree_view.tree_fragment.
    links: addresses of other pages by what a link says; they stand at the top.
  """
  anchors = ''
  for text, address in (links or {}).items():
    anchors += f'<a href="{escaped(address)}">{escaped(text)}</a>'
  way = f'<p class="ds-tree way">{anchors}</p>\n' if anchors else ''
  title = f'tree of {shorten(row["tree"]["problem_id"], MAX_ANSWER)}'
  return _document(title, way + tree_section(row, name='tree'), style=TREE_STYLE + _PAGE_STYLE)


def overview_page(
  rows: Sequence[Mapping[str, Any]], addresses: Sequence[str], *, title: str
) -> str:
  """Returns a page with a line for each tree, which links to its page.

  Args:
    rows: lines of the output of `ds-jax search`.
    addresses: of their pages, relative to this one.
    title: of the page.
  """
  head = ('', 'problem', 'answer', 'right answer')
  numbers = ('right/ends', 'collected', 'expansions', 'nodes', 'time')
  cells = [f'<th scope="col">{name}</th>' for name in head]
  cells += [f'<th scope="col" class="number">{name}</th>' for name in numbers]
  lines = [_line(*pair) for pair in zip(rows, addresses, strict=True)]
  body = (
    f'<main class="ds-tree ds-trees"><h1>{escaped(title)}</h1>\n{_filter(rows)}\n'
    f'<div class="wide"><table>\n<thead><tr>{"".join(cells)}</tr></thead>\n<tbody>\n'
    + '\n'.join(lines)
    + '\n</tbody>\n</table></div></main>'
  )
  style = TREE_STYLE + _PAGE_STYLE + _OVERVIEW_STYLE
  return _document(title, body, style=style)


def _filter(rows: Sequence[Mapping[str, Any]]) -> str:
  """Which lines are shown: all, or those of trees that were solved, or not."""
  states = [_state(row) for row in rows]
  counts = {
    'all': len(rows),
    'solved': states.count('correct'),
    'not solved': states.count('wrong'),
  }
  labels = []
  for name, count in counts.items():
    checked = ' checked' if name == 'all' else ''
    labels.append(
      f'<label><input type="radio" name="only" value="{name}"{checked}> {name} ({count:,})</label>'
    )
  return f'<p>{"".join(labels)}</p>'


def _state(row: Mapping[str, Any]) -> str:
  """The verdict on a tree as a whole."""
  if not is_graded(row['tree']):
    return 'ungraded'
  return 'correct' if row['tree']['is_solved'] else 'wrong'


def _line(row: Mapping[str, Any], address: str) -> str:
  tree, state = row['tree'], _state(row)
  root, selected = tree['nodes'][0], row['selected'] or {}
  name = escaped(shorten(tree['problem_id'], MAX_ANSWER))
  question = escaped(shorten(row['question'], MAX_QUESTION))
  cells = (
    word_badge(state, SIGNS[state]),
    f'<a href="{escaped(address)}">{question}</a><p class="counts">{name}</p>',
    f'{answer_text(selected.get("answer"))} {correctness(selected)}',
    answer_text(row['gold']),
  )
  numbers = (
    f'{root["num_correct"]:,}/{root["num_ends"]:,}',
    f'{len(tree["collected"]):,}',
    or_dash(tree['statistics'].get('expansions'), number),
    f'{len(tree["nodes"]):,}',
    or_dash(row['table']['time_per_tree'], duration),
  )
  line = ''.join(f'<td>{cell}</td>' for cell in cells)
  line += ''.join(f'<td class="number">{cell}</td>' for cell in numbers)
  return f'<tr class="{state}">{line}</tr>'


def _document(title: str, body: str, *, style: str) -> str:
  """Returns a whole page. Its policy names the one style by its hash, so no other applies."""
  digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
  policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
  color_scheme = '<meta name="color-scheme" content="light dark">'
  return html_document(
    title,
    body,
    style=style,
    policy=policy,
    head=(color_scheme, GENERATOR),
    css_class='ds-page',
  )
