"""The style of a tree: readable in light and dark, on phones, and without telling colours apart.

Values run from orange over none to blue, which people who confuse red and green tell apart; each
has its number and its sign beside it.
"""

from __future__ import annotations

_LIGHT = """
  --ink: #1c2128; --muted: #5d6773; --line: #dfe3e8; --soft: #f5f6f8; --paper: #ffffff;
  --link: #0a58b0; --mark: #fff3c4; --star: #1c2128; --star-ink: #ffffff; --got: #f3effc;
  --p1: #deecf9; --p2: #abd1f2; --p3: #72b3e8; --m1: #fce9d8; --m2: #f8c797; --m3: #f09c4f;
  --good: #0b5cad; --bad: #a84300; --other: #5d6773;
"""
_DARK = """
  --ink: #e4e8ee; --muted: #98a2af; --line: #343b45; --soft: #1e242c; --paper: #14181d;
  --link: #7db8f5; --mark: #3a320e; --star: #e4e8ee; --star-ink: #14181d; --got: #241f38;
  --p1: #17304a; --p2: #1b4a78; --p3: #1f66a5; --m1: #412c18; --m2: #6b4014; --m3: #945310;
  --good: #7db8f5; --bad: #f3a55c; --other: #98a2af;
"""

_RULES = """
.ds-tree { color: var(--ink); background: var(--paper); line-height: 1.45; padding: .1rem .6rem;
  font-size: .92rem; font-family: system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif;
  container-type: inline-size; }
.ds-tree * { box-sizing: border-box; }
.ds-tree a { color: var(--link); text-decoration: none; }
.ds-tree a:hover { text-decoration: underline; }
.ds-tree i, .ds-tree em { font-style: normal; }
.ds-tree h2 { font-size: .85rem; font-weight: 500; margin: .6rem 0 .2rem; color: var(--muted);
  overflow-wrap: anywhere; }
.ds-tree p { margin: .25rem 0; overflow-wrap: anywhere; }
.ds-tree .question { font-size: 1.15rem; font-weight: 600; white-space: pre-wrap;
  max-height: 12rem; overflow: auto; }
.ds-tree .l { color: var(--muted); display: inline-block; min-width: 6rem; }
.ds-tree .counts, .ds-tree .order p { color: var(--muted); font-size: .85rem; }
.ds-tree code, .ds-tree .t { unicode-bidi: isolate;
  font-family: ui-monospace, 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace; }
.ds-tree code { background: var(--soft); padding: .05rem .3rem; border-radius: 4px; }
.ds-tree summary { cursor: pointer; list-style: none; }
.ds-tree summary::-webkit-details-marker { display: none; }

.ds-tree .legend { margin: .5rem 0 .8rem; }
.ds-tree .legend > summary { color: var(--link); font-size: .85rem; }
.ds-tree dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem;
  margin: .4rem 0; font-size: .85rem; }
.ds-tree dt { font-weight: 600; }
.ds-tree dd { margin: 0; }

.ds-tree .head, .ds-tree .tree summary { display: grid; align-items: start; column-gap: .6rem;
  grid-template-columns: auto minmax(0, 1fr) auto 3rem 3.4rem 3.4rem 4.2rem; }
.ds-tree .head { grid-template-columns: minmax(0, 1fr) 3rem 3.4rem 3.4rem 4.2rem;
  color: var(--muted); font-size: .78rem; padding: .2rem .4rem; position: sticky; top: 0;
  z-index: 1; background: var(--paper); border-bottom: 1px solid var(--line); }
.ds-tree .r { text-align: right; }
.ds-tree .tree summary { padding: .14rem .4rem; border-left: 5px solid var(--line); }
.ds-tree .tree summary:hover { background: var(--soft); }
.ds-tree .tree summary:focus-visible { outline: 2px solid var(--link); outline-offset: -2px; }
.ds-tree .tree b { font-weight: 400; color: var(--muted); font-size: .82rem; white-space: nowrap;
  font-variant-numeric: tabular-nums; min-width: 2.4rem; }
.ds-tree .tree b::before { content: '▸'; display: inline-block; width: .95rem;
  color: var(--muted); }
.ds-tree .tree [open] > summary > b::before { content: '▾'; }
.ds-tree .tree .leaf > summary > b::before { content: ''; }
.ds-tree .t { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-size: .86rem;
  contain: paint; }
.ds-tree [open] > summary > .t { white-space: pre-wrap; overflow-wrap: anywhere;
  max-height: 11.6em; overflow: auto; }
.ds-tree .t.root { font-family: inherit; }
.ds-tree .t em { color: var(--muted); background: var(--soft); }
.ds-tree .tree i { text-align: right; font-variant-numeric: tabular-nums; font-size: .84rem; }
.ds-tree .q { border-radius: 4px; padding: 0 .25rem; }
.ds-tree .m { display: contents; }
.ds-tree .f { display: flex; flex-wrap: wrap; gap: .25rem; justify-content: end; font-size: .78rem;
  max-width: 22rem; }

.ds-tree .w, .ds-tree .s, .ds-tree .c, .ds-tree .more { border-radius: 4px; padding: 0 .3rem;
  white-space: nowrap; border: 1px solid var(--line); }
.ds-tree .w { color: var(--other); border-color: currentcolor; font-weight: 600; }
.ds-tree .w.correct { color: var(--good); }
.ds-tree .w.wrong, .ds-tree .w.no_answer, .ds-tree .w.incomplete { color: var(--bad); }
.ds-tree .s { background: var(--star); color: var(--star-ink); border-color: var(--star);
  font-weight: 700; }
.ds-tree .c a, .ds-tree .more { color: var(--muted); }
.ds-tree .c a + a, .ds-tree .c a:first-child:not(:last-child) { padding: 0 .2rem; }
.ds-tree .tree .t { color: var(--muted); }
.ds-tree .on > summary > b { color: var(--ink); font-weight: 700; }
.ds-tree .on > summary > .t { color: var(--ink); }
.ds-tree .got > summary { background: var(--got); }

.ds-tree .k { margin-left: 1.1rem; }
.ds-tree .k > details { margin-top: .3rem; }
.ds-tree :target > summary, .ds-tree li:target { background: var(--mark);
  outline: 2px solid var(--ink); outline-offset: -2px; }
.ds-tree .tree details { scroll-margin-top: 4rem; }

.ds-tree .order { margin-top: 1.2rem; }
.ds-tree .order h3 { font-size: 1rem; margin: .2rem 0; }
.ds-tree .order ol { list-style: none; margin: .4rem 0; padding: 0; max-height: 26rem;
  overflow: auto; border: 1px solid var(--line); border-radius: 6px; }
.ds-tree .order li { padding: .1rem .5rem; font-size: .82rem; display: grid; column-gap: .5rem;
  grid-template-columns: 2rem 3.6rem 2.4rem minmax(0, 1fr) auto; }
.ds-tree .order li > b, .ds-tree .order li > a { text-align: right; }
.ds-tree .order li:nth-child(even) { background: var(--soft); }
.ds-tree .order b { font-weight: 600; font-variant-numeric: tabular-nums; }
.ds-tree .order .w { border: 0; padding: 0; }

@container (max-width: 44rem) {
  .ds-tree .head { display: none; }
  .ds-tree .tree summary { grid-template-columns: auto minmax(0, 1fr); row-gap: .15rem; }
  .ds-tree .tree .f, .ds-tree .tree .m { grid-column: 2; max-width: none; }
  .ds-tree .tree .f { justify-content: start; }
  .ds-tree .tree .f:empty { display: none; }
  .ds-tree .tree .m { display: flex; flex-wrap: wrap; column-gap: .7rem; color: var(--muted); }
  .ds-tree .tree .q { color: var(--ink); }
  .ds-tree .m > :nth-child(1)::before { content: 'visits '; }
  .ds-tree .m > :nth-child(2)::before { content: 'q '; }
  .ds-tree .m > :nth-child(3)::before { content: 'entropy '; }
  .ds-tree .m > :nth-child(4)::before { content: 'right '; }
  .ds-tree .k { margin-left: .4rem; }
}
@media (min-width: 80rem) {
  .ds-page section.ds-tree { display: grid; gap: 0 1.6rem;
    grid-template-columns: minmax(0, 1fr) 22rem; }
  .ds-page section > header { grid-column: 1 / -1; }
  .ds-page .order { position: sticky; top: 0; align-self: start; margin-top: 0; }
  .ds-page .order ol { max-height: calc(100vh - 6rem); }
}
"""


def _value_rules() -> str:
  """Colours of values: the left edge of a row, and its q."""
  rules = []
  for step in ('m3', 'm2', 'm1', 'p1', 'p2', 'p3'):
    rules.append(f'.ds-tree .{step} > summary {{ border-left-color: var(--{step}); }}')
    rules.append(
      f'.ds-tree .{step} > summary > .m > .q, .ds-tree .q.{step} {{ background: var(--{step}); }}'
    )
  return '\n'.join(rules)


def _colours() -> str:
  """Colours as the system wants them, and where a page around the tree decides it: as it says."""
  light = ', '.join(f'{place} .ds-tree' for place in ('.ds-light', '[data-jp-theme-light="true"]'))
  dark = ', '.join(
    f'{place} .ds-tree' for place in ('[data-jp-theme-light="false"]', '[theme="dark"]')
  )
  return f"""
.ds-tree, .ds-page {{{_LIGHT}}}
@media (prefers-color-scheme: dark) {{ .ds-tree, .ds-page {{{_DARK}}} }}
{light} {{{_LIGHT}}}
{dark} {{{_DARK}}}
"""


TREE_STYLE = _colours() + _RULES + _value_rules()
