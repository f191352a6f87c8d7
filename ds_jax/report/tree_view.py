"""A finished tree as a piece of HTML: no script, no request, every text escaped.

Texts of nodes are model output, which is hostile: they pass through `escaped`, and stand in
elements that keep their direction and their extent to themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ds_jax.report.text import escaped, number, or_dash, shorten
from ds_jax.report.tree_shape import MAX_TEXT, Choice, Node, TreeView, tree_view
from ds_jax.report.tree_signs import (
  MAX_ANSWER,
  SIGNS,
  UNKNOWN,
  answer_text,
  correctness,
  is_graded,
  verdict_badge,
  word_badge,
)
from ds_jax.report.tree_style import TREE_STYLE

MAX_EXCERPT = 60  # characters of a node, in the list of choices
MAX_NESTING = 120  # deeper nodes stand beside each other: readers of HTML give up at 512 elements
MAX_BADGES = 4  # of choices of one node

_SCALE = (-1.0, -0.5, -0.1, 0.0, 0.1, 0.5, 1.0)  # a value of each colour
# What is meant by how a node was chosen (search.selection.How).
CHOICES = {
  'root': 'the search begins',
  'local': 'best child by UCT, further down',
  'uct': 'after an end: best child by UCT, from the root again',
  'global': 'after an end: best node of the whole frontier',
  'fallback': 'nothing is left below: best node of the frontier',
  'rollout': 'next segment of a rollout',
  'fork': 'one more child, because of how its rollout ended',
}
_GROWS_AT_ONCE = {'rollout', 'fork'}  # policies in waves, whose nodes are numbered depth first


def tree_fragment(row: Mapping[str, Any], *, name: str = 'tree') -> str:
  """Returns a tree as HTML that stands in any page, with its own style; pure.

  Nodes are folded; paths to collected ends are open at first. Every node has its text, visits,
  q, entropy, verdict, and when and how it was chosen. A list of the choices in order links to
  their nodes.

  Args:
    row: a line of the output of `ds-jax search`, or as much of it as is known: 'tree' by
      inspect.tree_to_dict; 'question', 'gold', 'selected' (the chosen end) may be missing.
    name: of letters, digits, '-' and '_'; a page's trees have different ones.
  """
  return f'<style>{TREE_STYLE}</style>\n{tree_section(row, name=name)}'


def tree_section(row: Mapping[str, Any], *, name: str) -> str:
  """Returns the same without its style, which a page needs only once; arguments likewise."""
  view = tree_view(row['tree']['nodes'], name=name)
  head = '<span>node</span>'
  for column in ('visits', 'q', 'entropy', 'right/ends'):
    head += f'<span class="r">{column}</span>'
  parts = [
    f'<section class="ds-tree" id="{name}">',
    _header(row, view),
    f'<div class="tree"><div class="head">{head}</div>',
    *_rows(view),
    '</div>',
    _order(view),
    '</section>',
  ]
  return '\n'.join(parts)


def _rows(view: TreeView) -> Iterator[str]:
  """Yields the HTML of all nodes, depth first. No recursion: trees may be deep."""
  stack: list[tuple[int, int] | str] = [(0, 1)]  # a node and how deep it is nested, or HTML
  while stack:
    item = stack.pop()
    if isinstance(item, str):
      yield item
      continue
    node, nesting = item
    below = view.children[node]
    yield f'<details{_attributes(view, node)}>{_summary(view, node)}'
    if nesting >= MAX_NESTING:
      yield '</details>'
      stack += [(child, nesting) for child in reversed(below)]
      continue
    # What is pushed first comes last.
    stack.append('</details>')
    is_fork = len(below) > 1
    if is_fork:
      stack.append('</div>')
    stack += [(child, nesting + 1 + is_fork) for child in reversed(below)]
    if is_fork:
      stack.append('<div class="k">')


def _attributes(view: TreeView, node: int) -> str:
  classes = [_value_class(view.nodes[node]['q'])]
  if not view.children[node]:
    classes.append('leaf')
  if node in view.on_collected:
    classes.append('on')
  if view.nodes[node]['collected_rank'] is not None:
    classes.append('got')
  is_open = ' open' if node in view.is_open else ''
  return f' id="{view.name}-n{node}" class="{" ".join(classes)}"{is_open}'


def _value_class(q: float | None) -> str:
  """The colour of a value: three steps to each side of 0, of which values near it have none."""
  if q is None or abs(q) < 0.05:
    return 'v0'
  step = 1 + (abs(q) >= 0.35) + (abs(q) >= 0.7)
  return f'{"p" if q > 0 else "m"}{step}'


def _summary(view: TreeView, index: int) -> str:
  node = view.nodes[index]
  q = or_dash(node['q'], '{:+.2f}'.format)
  entropy = or_dash(node['entropy'], '{:.2f}'.format)
  ends = f'{node["num_correct"]}/{node["num_ends"]}'
  place = f'depth {node["depth"]}, {node["num_tokens"]} tokens'
  return (
    f'<summary><b title="{place}">{index}</b>{_text(view, node)}'
    f'<span class="f">{_badges(view, node)}</span><span class="m"><i>{node["visits"]}</i>'
    f'<i class="q">{q}</i><i>{entropy}</i><i>{ends}</i></span></summary>'
  )


def _text(view: TreeView, node: Node) -> str:
  """What a node says; the middle of a long text is left out, since answers stand at the end."""
  if node['parent'] is None:
    return '<span class="t root">the problem</span>'
  text = node['text']
  left_out = len(text) - view.max_text
  if left_out <= 0:
    return f'<span class="t">{escaped(text)}</span>'
  head = view.max_text * 2 // 3
  tail = head + left_out
  return (
    f'<span class="t">{escaped(text[:head])}<em> … {left_out:,} characters left out … </em>'
    f'{escaped(text[tail:])}</span>'
  )


def _badges(view: TreeView, node: Node) -> str:
  """Verdict, reward, place among the collected, and when and how the node was chosen."""
  badges = []
  if node['verdict'] is not None:
    badges.append(verdict_badge(node['verdict'], reward=node['reward']))
  if node['collected_rank'] is not None:
    badges.append(f'<span class="s">★ {node["collected_rank"]}</span>')
  for chosen in node['chosen'][:MAX_BADGES]:
    badges.append(_choice_badge(view, Choice(chosen['iteration'], node['id'], chosen['how'])))
  if len(node['chosen']) > MAX_BADGES:
    badges.append(f'<span class="more">{len(node["chosen"]):,} times</span>')
  return ' '.join(badges)


def _choice_badge(view: TreeView, choice: Choice) -> str:
  """A link to the choice in the list, between links to the nodes chosen before and after it."""
  link = f'<a href="#{view.name}-c{choice.when}">{choice.when} {escaped(choice.how)}</a>'
  if choice.when > 1:
    before = view.choices[choice.when - 2].node
    link = f'<a href="#{view.name}-n{before}" title="chosen before">‹</a>{link}'
  if choice.when < len(view.choices):
    after = view.choices[choice.when].node
    link = f'{link}<a href="#{view.name}-n{after}" title="chosen next">›</a>'
  return f'<span class="c">{link}</span>'


def _header(row: Mapping[str, Any], view: TreeView) -> str:
  tree = row['tree']
  parts = [f'<h2>{escaped(shorten(tree["problem_id"], MAX_ANSWER))}</h2>']
  if row.get('question'):
    parts.append(f'<p class="question">{escaped(shorten(row["question"], MAX_TEXT))}</p>')
  parts.append(f'<p>{_outcome(tree)}</p>')
  selected = row.get('selected')
  if selected:
    answer = answer_text(selected['answer'])
    parts.append(f'<p><span class="l">answer</span> {answer} {correctness(selected)}</p>')
  if row.get('gold'):
    parts.append(f'<p><span class="l">right answer</span> {answer_text(row["gold"])}</p>')
  order = f'<a href="#{view.name}-order">{len(view.choices):,} choices in order</a>'
  parts.append(f'<p class="counts">{_counts(tree)} · {order}</p>')
  parts.append(_legend(view))
  return f'<header>{"".join(parts)}</header>'


def _outcome(tree: Mapping[str, Any]) -> str:
  """How a search came out: solved or not, and how many of its ends are right."""
  if not is_graded(tree):
    return word_badge('ungraded', f'{SIGNS["ungraded"]} not graded')
  verdict, word = ('correct', 'solved') if tree['is_solved'] else ('wrong', 'not solved')
  root = tree['nodes'][0]
  counts = f'{root["num_correct"]:,} of {root["num_ends"]:,} ends right'
  return f'{word_badge(verdict, f"{SIGNS[verdict]} {word}")} {counts}'


def _counts(tree: Mapping[str, Any]) -> str:
  counts = [f'{len(tree["collected"]):,} collected']
  for name, value in tree['statistics'].items():
    counts.append(f'{escaped(or_dash(value, number))} {escaped(name.replace("_", " "))}')
  return ' · '.join(counts)


def _legend(view: TreeView) -> str:
  """What the signs, colours and words that occur mean, folded away."""
  verdicts = {node['verdict'] for node in view.nodes}
  signs = [verdict_badge(verdict) for verdict in SIGNS if verdict in verdicts]
  steps = [f'<i class="q {_value_class(q)}">{q:+.1f}</i>' for q in _SCALE]
  entries = {
    'signs': f'how a path ended, and its reward: {" ".join(signs)}',
    'q': f'value over visits, from wrong to right: {" ".join(steps)}',
    'visits': 'times that an end below was credited',
    'entropy': "mean over the node's tokens, in nats",
    'right/ends': 'right ends of those below that were verified',
    '★': 'collected, in this order: what training learns from; nodes on the way have bold numbers',
    'indentation': 'where children part; a path without forks goes straight down',
    '7 how': 'the 7th choice of the search, and the rule that made it; it gave the node children',
  }
  hows = {choice.how for choice in view.choices}
  entries |= {how: meaning for how, meaning in CHOICES.items() if how in hows}
  terms = [f'<dt>{name}</dt><dd>{text}</dd>' for name, text in entries.items()]
  return (
    f'<details class="legend"><summary>How to read it</summary><dl>{"".join(terms)}</dl></details>'
  )


def _order(view: TreeView) -> str:
  """The choices in order, each with a link to its node and the ends that it brought."""
  note = 'Each choice gave a node children. A link shows the node in the tree.'
  if _GROWS_AT_ONCE & {choice.how for choice in view.choices}:
    note = (
      'Each choice gave a node children. Branches grew side by side here, so choices are numbered '
      'along the branches, not by the clock.'
    )
  entries = [_entry(view, choice) for choice in view.choices]
  return (
    f'<nav class="order" id="{view.name}-order"><h3>{len(view.choices):,} choices in order</h3>'
    f'<p>{note}</p><ol>{"".join(entries)}</ol></nav>'
  )


def _entry(view: TreeView, choice: Choice) -> str:
  node = view.nodes[choice.node]
  text = 'the problem' if node['parent'] is None else ' '.join(node['text'].split())
  signs = ''
  if len(node['chosen']) == 1:  # else which choice brought them is not known
    signs = ''.join(_end_signs(view, choice.node))
  return (
    f'<li id="{view.name}-c{choice.when}"><b>{choice.when}</b><span>{escaped(choice.how)}</span>'
    f'<a href="#{view.name}-n{choice.node}">{choice.node}</a>'
    f'<span class="t">{escaped(shorten(text, MAX_EXCERPT))}</span><span>{signs}</span></li>'
  )


def _end_signs(view: TreeView, node: int) -> Iterator[str]:
  """Signs of the children of a node that are ends."""
  for child in view.children[node]:
    verdict = view.nodes[child]['verdict']
    if verdict is not None:
      yield word_badge(verdict, SIGNS.get(verdict, UNKNOWN))
