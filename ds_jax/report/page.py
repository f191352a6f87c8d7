"""The report as one HTML page: no script, no request, every text escaped.

Trees hold model output, which is hostile text: it passes through `escaped`, and a content security
policy forbids scripts and requests as a second fence.
"""

from __future__ import annotations

import base64
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ds_jax.report.document import html_document
from ds_jax.report.metrics import series
from ds_jax.report.summary import cost_line, headline, skipped_line, table_rows
from ds_jax.report.text import duration, escaped, number, or_dash, percent, shorten
from ds_jax.report.tree_style import TREE_STYLE
from ds_jax.report.tree_view import tree_section

_STYLE = """
:root { --ink: #20262d; --muted: #6b7480; --line: #e4e7eb; --soft: #f6f7f9; }
* { box-sizing: border-box; }
body { max-width: 68rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; color: var(--ink);
  background: #fff; font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .7rem; }
.lead { font-size: 1.2rem; margin: .7rem 0 .1rem; }
.muted { color: var(--muted); margin: .2rem 0; }
.wide { overflow-x: auto; }
img { display: block; width: 100%; height: auto; margin: 1.8rem 0; border: 1px solid var(--line);
  border-radius: 6px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .38rem 1.6rem .38rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
thead th { color: var(--muted); font-weight: 500; font-size: .88rem; white-space: nowrap; }
tbody th { font-weight: 500; }
.fold { border: 1px solid var(--line); border-radius: 6px; margin: .6rem 0; }
.fold > summary { cursor: pointer; padding: .55rem .9rem; }
.fold > .wide { padding: .2rem .9rem .9rem; }
pre, code { font: 13px/1.5 ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono',
  monospace; }
pre { margin: 0; padding: .8rem .9rem; overflow-x: auto; background: var(--soft);
  border-radius: 0 0 6px 6px; }
pre.prose { white-space: pre-wrap; overflow-wrap: anywhere; }
"""

_RESPONSE_LENGTH = 6000  # characters of a response that are shown
_ANSWER_LENGTH = 40  # likewise, of an answer

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


class _Metric(NamedTuple):
  """A metric that the page shows."""

  name: str  # in the rows of metrics
  label: str
  write: Callable[[Any], str]


# Of rows of kind 'train'.
_STATISTICS = (
  _Metric('search/solve_rate', 'problems solved', percent),
  _Metric('search/reward', 'mean reward of collected ends', number),
  _Metric('search/expansions_per_tree', 'expansions per tree', number),
  _Metric('search/ends_per_tree', 'verified ends per tree', number),
  _Metric('search/cut_share', 'ends cut off at the limit', percent),
  _Metric('search/tokens', 'tokens generated per step', number),
  _Metric('search/yield', 'tokens trained on, of those generated', percent),
  _Metric('search/path_over_distinct', 'tokens of collected paths, over distinct ones', number),
  _Metric('time/recomputed_share', 'tokens encoded again, of those generated', percent),
  _Metric('time/occupancy', 'slots at work', percent),
  _Metric('train/trajectories', 'trajectories per step', number),
  _Metric('train/entropy', 'entropy of the policy (nats)', number),
  _Metric('train/clip_fraction', 'clipped tokens', percent),
  _Metric('train/grad_norm', 'gradient norm', number),
  _Metric('train/skipped', 'updates skipped', percent),
  _Metric('time/search', 'time of the search per step', duration),
  _Metric('time/update', 'time of the update per step', duration),
  _Metric('time/step', 'time per step', duration),
)
# Of rows of kind 'train', where a setting that is off by default puts them.
_LEVERS = (
  _Metric('search/contrast_share', 'groups with right and wrong ends', percent),
  _Metric('search/unused_tokens_share', 'tokens in groups that nothing is learnt from', percent),
  _Metric('search/waited_groups', 'groups of the step before', number),
  _Metric('search/wave_rollouts', 'further rollouts, in waves', number),
  _Metric('search/wave_contrasts', 'groups that got contrast by waves', number),
  _Metric('search/short_groups', 'problems that began with few rollouts', number),
  _Metric('search/forks', 'forks because of an outcome', number),
  _Metric('explore/temperature', 'temperature of the groups', number),
  _Metric('memory/problems_used', 'problems that memory lent solutions of', number),
  _Metric('memory/mass_share', "memory's share of the advantages", percent),
  _Metric('prefix/share', 'groups that started from a prefix', percent),
  _Metric('prefix/right_share', 'right ends of these', percent),
  _Metric('train/passes', "passes over a step's minibatches", number),
  _Metric('train/lora_norm', 'norm of what adapters add', number),
  _Metric('train/lora_moved_share', 'weights that adapters have moved', percent),
)
# Of rows of kind 'filter'.
_ROUNDS = (
  _Metric('round', 'round', number),
  _Metric('step', 'at step', number),
  _Metric('filter/num_problems', 'problems', number),
  _Metric('filter/num_hard', 'hard', number),
  _Metric('filter/pass_at_1', 'pass@1 of the filter', percent),
  _Metric('replay/num_problems', 'cached problems', number),
  _Metric('replay/num_trajectories', 'cached trajectories', number),
)


def render_page(
  metrics: Sequence[Mapping[str, Any]], summary: Mapping[str, Any], picture: bytes
) -> str:
  """Returns the page.

  Args:
    metrics: rows of read_metrics.
    summary: fields of report/summary.py, all optional.
    picture: a PNG; it is embedded.
  """
  title = summary.get('title') or 'DeepSearch run'
  source = f'data:image/png;base64,{base64.b64encode(picture).decode()}'
  parts = [
    f'<h1>{escaped(title)}</h1>',
    f'<p class="lead">{escaped(headline(summary))}.</p>',
    f'<p class="muted">{escaped(cost_line(summary))}</p>',
    f'<img src="{source}" alt="Learning curve, search statistics and optimisation">',
    _paragraph(_beside_line(summary)),
    _section('Evaluation', _table(table_rows(summary))),
    _paragraph(skipped_line(summary)),
    _section('Responses', _responses(summary.get('responses') or {})),
    _section('Search and learning', _statistics_table(metrics)),
    _section('Rounds', _rounds_table(metrics)),
    _section('Example trees', _trees(summary.get('trees') or ())),
    _section('Settings', _config(summary.get('config') or {})),
  ]
  body = '\n'.join(part for part in parts if part)
  return html_document(title, body, style=f'{TREE_STYLE}{_STYLE}', policy=_POLICY)


def _beside_line(summary: Mapping[str, Any]) -> str:
  """Where the broken lines of the learning curve come from; '' without any."""
  beside = summary.get('beside') or {}
  return f'Broken lines: {beside["label"]}, of `{beside["command"]}`.' if beside else ''


def _section(title: str, body: str) -> str:
  if not body:
    return ''
  return f'<h2>{escaped(title)}</h2>\n{body}'


def _paragraph(text: str) -> str:
  return f'<p>{escaped(text)}</p>' if text else ''


def _table(rows: Iterable[Sequence[Any]]) -> str:
  """Returns a table whose head is the first row; the first column names the rows."""
  head, *body = rows
  titles = [f'<th scope="col">{escaped(cell)}</th>' for cell in head]
  lines = []
  for name, *values in body:
    cells = [f'<th scope="row">{escaped(name)}</th>']
    cells += [f'<td>{escaped(value)}</td>' for value in values]
    lines.append(f'<tr>{"".join(cells)}</tr>')
  return (
    f'<div class="wide"><table>\n<thead><tr>{"".join(titles)}</tr></thead>\n<tbody>\n'
    + '\n'.join(lines)
    + '\n</tbody>\n</table></div>'
  )


def _statistics_table(metrics: Sequence[Mapping[str, Any]]) -> str:
  """Returns means over the first and the last tenth of the training steps, and over all of them."""
  rows = [('', 'first tenth of steps', 'last tenth', 'all', 'metric')]
  for name, label, write in (*_STATISTICS, *_LEVERS, *_source_metrics(metrics)):
    _, values = series(metrics, 'train', name)
    if not values:
      continue
    tenth = -(-len(values) // 10)  # rounded up
    first, last = statistics.fmean(values[:tenth]), statistics.fmean(values[-tenth:])
    rows.append((label, write(first), write(last), write(statistics.fmean(values)), name))
  if len(rows) == 1:
    return '<p class="muted">No training steps yet.</p>'
  return _table(rows)


def _source_metrics(metrics: Sequence[Mapping[str, Any]]) -> list[_Metric]:
  """Returns the solve rate of each of several sources."""
  prefix = 'search/solve_rate/'
  names = sorted({name for row in metrics for name in row if name.startswith(prefix)})
  return [_Metric(name, f'problems solved, {name.removeprefix(prefix)}', percent) for name in names]


def _rounds_table(metrics: Sequence[Mapping[str, Any]]) -> str:
  """Returns a row for each time that the hard problems were chosen; '' without any."""
  rows = [[metric.label for metric in _ROUNDS]]
  for row in metrics:
    if row['kind'] == 'filter':
      rows.append([or_dash(row.get(metric.name), metric.write) for metric in _ROUNDS])
  return _table(rows) if len(rows) > 1 else ''


def _responses(responses: Mapping[str, Any]) -> str:
  """Returns responses of an evaluation, each folded away with its question; '' without any."""
  if not responses.get('rows'):
    return ''
  note = f'Right and wrong ones of {responses["file"]}, which has all. Long ones lack their middle.'
  parts = [f'<p class="muted">{escaped(note)}</p>']
  for row in responses['rows']:
    head = escaped(_response_title(row))
    texts = []
    for name in ('question', 'response'):
      text = shorten(str(row.get(name)), _RESPONSE_LENGTH)
      texts.append(f'<pre class="prose">{escaped(text)}</pre>')
    parts.append(f'<details><summary>{head}</summary>{"".join(texts)}</details>')
  return '\n'.join(parts)


def _response_title(row: Mapping[str, Any]) -> str:
  """Returns 'wrong: aime2024/3, sample 0 · answer 7 · right is 12 · 512 tokens, cut off'."""
  answer, gold = (shorten(str(row.get(name)), _ANSWER_LENGTH) for name in ('answer', 'gold'))
  cut = ', cut off' if row.get('is_cut') else ''
  facts = [f'answer {answer}', f'right is {gold}', f'{row.get("num_tokens")} tokens{cut}']
  return ' · '.join([f'{row["verdict"]}: {row["id"]}, sample {row.get("sample")}', *facts])


def _trees(trees: Iterable[Mapping[str, Any]]) -> str:
  """Returns the trees folded away, but for the first."""
  parts = []
  for i, tree in enumerate(trees):
    is_open = ' open' if i == 0 else ''
    summary = f'<summary>{escaped(tree["title"])}</summary>'
    parts.append(f'<details class="fold"{is_open}>{summary}{_tree(tree, i)}</details>')
  return '\n'.join(parts)


def _tree(tree: Mapping[str, Any], place: int) -> str:
  """Returns one to be looked at, on paper as white as the page; of an older run as text."""
  if 'tree' not in tree:
    return f'<pre>{escaped(tree["text"])}</pre>'
  return f'<div class="ds-light">{tree_section(tree, name=f"tree-{place}")}</div>'


def _config(config: Mapping[str, Any]) -> str:
  """Returns one table of all fields, by section, folded away."""
  rows = _config_rows(config)
  if not rows:
    return ''
  table = _table([('field', 'value'), *rows])
  return f'<details class="fold"><summary>{len(rows)} fields</summary>{table}</details>'


def _config_rows(fields: Mapping[str, Any], prefix: str = '') -> list[tuple[str, str]]:
  rows = []
  for name, value in fields.items():
    if isinstance(value, Mapping):
      rows += _config_rows(value, f'{prefix}{name}.')
    else:
      rows.append((f'{prefix}{name}', repr(value) if isinstance(value, str) else str(value)))
  return rows
