"""The report as one HTML page: no script, no request, every text escaped.

Trees hold model output, which is hostile text: it passes through `_text`, and a content security
policy forbids scripts and requests as a second fence.
"""

from __future__ import annotations

import base64
import html
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ds_jax.report.metrics import series
from ds_jax.report.summary import cost_line, headline, table_rows
from ds_jax.report.text import duration, number, percent, visible

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
details { border: 1px solid var(--line); border-radius: 6px; margin: .6rem 0; }
summary { cursor: pointer; padding: .55rem .9rem; }
details > .wide { padding: .2rem .9rem .9rem; }
pre, code { font: 13px/1.5 ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono',
  monospace; }
pre { margin: 0; padding: .8rem .9rem; overflow-x: auto; background: var(--soft);
  border-radius: 0 0 6px 6px; }
"""

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_SHARE = percent
# Name in rows of kind 'train', its label, how it is written.
_STATISTICS = (
  ('search/solve_rate', 'problems solved', _SHARE),
  ('search/reward', 'mean reward of collected ends', number),
  ('search/expansions_per_tree', 'expansions per tree', number),
  ('search/ends_per_tree', 'verified ends per tree', number),
  ('search/tokens', 'tokens generated per step', number),
  ('search/yield', 'tokens trained on, of those generated', _SHARE),
  ('search/path_over_distinct', 'tokens of collected paths, over distinct ones', number),
  ('time/recomputed_share', 'tokens encoded again, of those generated', _SHARE),
  ('time/occupancy', 'slots at work', _SHARE),
  ('train/trajectories', 'trajectories per step', number),
  ('train/entropy', 'entropy of the policy (nats)', number),
  ('train/clip_fraction', 'clipped tokens', _SHARE),
  ('train/grad_norm', 'gradient norm', number),
  ('time/search', 'time of the search per step', duration),
  ('time/update', 'time of the update per step', duration),
  ('time/step', 'time per step', duration),
)
_ROUNDS = (
  ('round', 'round', number),
  ('step', 'at step', number),
  ('filter/num_problems', 'problems', number),
  ('filter/num_hard', 'hard', number),
  ('filter/pass_at_1', 'pass@1 of the filter', _SHARE),
  ('replay/num_problems', 'cached problems', number),
  ('replay/num_trajectories', 'cached trajectories', number),
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
  title = _text(summary.get('title') or 'DeepSearch run')
  source = f'data:image/png;base64,{base64.b64encode(picture).decode()}'
  parts = [
    f'<h1>{title}</h1>',
    f'<p class="lead">{_text(headline(summary))}.</p>',
    f'<p class="muted">{_text(cost_line(summary))}</p>',
    f'<img src="{source}" alt="Learning curve, search statistics and optimisation">',
    _section('Before and after', _table(table_rows(summary))),
    _section('Search and learning', _statistics_table(metrics)),
    _section('Rounds', _rounds_table(metrics)),
    _section('Example trees', _trees(summary.get('trees') or ())),
    _section('Settings', _config(summary.get('config') or {})),
  ]
  return (
    f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
    f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f'<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n'
    + '\n'.join(filter(None, parts))
    + '\n</body>\n</html>\n'
  )


def _text(value: Any) -> str:
  """Escaped for HTML; unprintable characters become visible, line breaks stay."""
  return html.escape(visible(str(value), keep='\n'))


def _section(title: str, body: str) -> str:
  return f'<h2>{_text(title)}</h2>\n{body}' if body else ''


def _table(rows: Iterable[Sequence[Any]]) -> str:
  """The first row is the head, the first column names the rows."""
  head, *body = ([_text(cell) for cell in row] for row in rows)
  cells = lambda row: f'<th scope="row">{row[0]}</th>' + ''.join(f'<td>{c}</td>' for c in row[1:])
  return (
    '<div class="wide"><table>\n<thead><tr>'
    + ''.join(f'<th scope="col">{cell}</th>' for cell in head)
    + '</tr></thead>\n<tbody>\n'
    + '\n'.join(f'<tr>{cells(row)}</tr>' for row in body)
    + '\n</tbody>\n</table></div>'
  )


def _statistics_table(metrics: Sequence[Mapping[str, Any]]) -> str:
  """Means over the first and the last tenth of the training steps, and over all of them."""
  rows = []
  for name, label, write in _STATISTICS:
    values = series(metrics, 'train', name)[1]
    if values:
      tenth = -(-len(values) // 10)
      rows.append(
        (
          label,
          *(write(statistics.fmean(part)) for part in (values[:tenth], values[-tenth:], values)),
          name,
        )
      )
  head = ('', 'first tenth of steps', 'last tenth', 'all', 'metric')
  return _table([head, *rows]) if rows else '<p class="muted">No training steps yet.</p>'


def _rounds_table(metrics: Sequence[Mapping[str, Any]]) -> str:
  rows = [
    [write(row[name]) if row.get(name) is not None else '–' for name, _, write in _ROUNDS]
    for row in metrics
    if row['kind'] == 'filter'
  ]
  return _table([[label for _, label, _ in _ROUNDS], *rows]) if rows else ''


def _trees(trees: Iterable[Mapping[str, str]]) -> str:
  return '\n'.join(
    f'<details{" open" if i == 0 else ""}><summary>{_text(tree["title"])}</summary>'
    f'<pre>{_text(tree["text"])}</pre></details>'
    for i, tree in enumerate(trees)
  )


def _config(config: Mapping[str, Any]) -> str:
  """One table of all fields, by section, folded away."""
  rows = [('field', 'value'), *_config_rows(config)]
  if len(rows) == 1:
    return ''
  return f'<details><summary>{len(rows) - 1} fields</summary>{_table(rows)}</details>'


def _config_rows(fields: Mapping[str, Any], prefix: str = '') -> list[tuple[str, str]]:
  rows = []
  for name, value in fields.items():
    if isinstance(value, Mapping):
      rows += _config_rows(value, f'{prefix}{name}.')
    else:
      rows.append((prefix + str(name), repr(value) if isinstance(value, str) else str(value)))
  return rows
