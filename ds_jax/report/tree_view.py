"""A finished tree as a piece of HTML: no script, no request, every text escaped.

Texts of nodes are model output, which is hostile: they pass through `escaped`, and stand in
elements that keep their direction and their extent to themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ds_jax.report.text import escaped, number, or_dash, shorten
from ds_jax.report.tree_style import TREE_STYLE

Node = Mapping[str, Any]  # an entry of 'nodes', see inspect.tree_to_dict

TEXT_BUDGET = 1_000_000  # characters of all nodes of a tree
MAX_TEXT, MIN_TEXT = 4_000, 200  # characters of one node, as far as the budget goes
MAX_EXCERPT = 60  # in the list of choices
MAX_OPEN_ROWS = 120  # that stand open at first
MAX_NESTING = 120  # deeper nodes stand beside each other: readers of HTML give up at 512 elements
MAX_ANSWER = 100
MAX_BADGES = 4  # of choices of one node

# A sign beside the colour and the word of every verdict.
SIGNS = {
  'correct': '✓',
  'wrong': '✗',
  'no_answer': '∅',
  'incomplete': '…',
  'timeout': '∞',
  'error': '!',
  'degenerate': '≈',
  'ungraded': '?',
}
UNKNOWN = '·'
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


class Choice(NamedTuple):
  """That the search gave a node children."""

  when: int  # from 1
  node: int
  how: str


class TreeView(NamedTuple):
  """A tree with what its rows need to know of each other."""

  nodes: Sequence[Node]
  children: Sequence[Sequence[int]]  # of each node
  choices: Sequence[Choice]  # in order
  on_collected: frozenset[int]  # nodes on paths to collected ends
  is_open: frozenset[int]  # nodes that are not folded at first
  max_text: int  # characters of a node that are shown
  name: str  # anchors begin with it


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


def tree_view(nodes: Sequence[Node], *, name: str) -> TreeView:
  """Returns what is to be shown of the nodes of a tree, the root first."""
  children: list[list[int]] = [[] for _ in nodes]
  for node in nodes[1:]:
    children[node['parent']].append(node['id'])
  choices = []
  for node in nodes:
    choices += [Choice(c['iteration'], node['id'], c['how']) for c in node['chosen']]
  collected = [node for node in nodes if node['collected_rank'] is not None]
  collected.sort(key=lambda node: (not node['num_correct'], node['collected_rank']))
  paths = [_path(nodes, node['id']) for node in collected]  # of right ends first
  return TreeView(
    nodes=nodes,
    children=children,
    choices=sorted(choices),
    on_collected=frozenset(node for path in paths for node in path),
    is_open=_open_nodes(children, paths or [_path(nodes, _best_end(nodes))]),
    max_text=min(MAX_TEXT, max(MIN_TEXT, TEXT_BUDGET // len(nodes))),
    name=name,
  )


def _path(nodes: Sequence[Node], node: int) -> list[int]:
  path = [node]
  while nodes[path[-1]]['parent'] is not None:
    path.append(nodes[path[-1]]['parent'])
  return path


def _best_end(nodes: Sequence[Node]) -> int:
  """The end of the highest q, where none is collected; the root, where there is none."""
  ends = [node['id'] for node in nodes if node['is_terminal']]
  return max(ends, key=lambda node: nodes[node]['q'] or 0.0, default=0)


def _open_nodes(
  children: Sequence[Sequence[int]], paths: Sequence[Sequence[int]]
) -> frozenset[int]:
  """The nodes of the first paths, as long as not too many rows show; of one path in any case."""
  opened: set[int] = set()
  num_rows = 1
  for path in paths:
    new = [node for node in path if node not in opened]
    num_rows += sum(len(children[node]) for node in new)
    if opened and num_rows > MAX_OPEN_ROWS:
      break
    opened.update(new)
  return frozenset(opened)


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


def verdict_badge(verdict: str, *, reward: float | None = None) -> str:
  """Returns sign, word and reward of a verdict, coloured."""
  text = f'{SIGNS.get(verdict, UNKNOWN)} {escaped(verdict.replace("_", " "))}'
  return word_badge(verdict, text if reward is None else f'{text} {reward:+.2f}')


def word_badge(verdict: str, text: str) -> str:
  """Returns text, which is HTML, in the colour of a verdict."""
  return f'<span class="w {verdict if verdict in SIGNS else "unknown"}">{text}</span>'


def _header(row: Mapping[str, Any], view: TreeView) -> str:
  tree = row['tree']
  parts = [f'<h2>{escaped(shorten(tree["problem_id"], 100))}</h2>']
  if row.get('question'):
    parts.append(f'<p class="question">{escaped(shorten(row["question"], MAX_TEXT))}</p>')
  parts.append(f'<p class="facts">{_outcome(row)}</p>')
  parts.append(f'<p class="counts">{_counts(tree)}</p>')
  parts.append(_legend(view))
  return f'<header>{"".join(parts)}</header>'


def _outcome(row: Mapping[str, Any]) -> str:
  """Returns how a search came out: solved or not, the chosen answer, and the right one."""
  root = row['tree']['nodes'][0]
  if not is_graded(row['tree']):
    parts = [word_badge('ungraded', f'{SIGNS["ungraded"]} not graded')]
  else:
    name, word = ('correct', 'solved') if row['tree']['is_solved'] else ('wrong', 'not solved')
    parts = [
      word_badge(name, f'{SIGNS[name]} {word}'),
      f'{root["num_correct"]:,} of {root["num_ends"]:,} ends right',
    ]
  selected = row.get('selected')
  if selected:
    parts.append(f'answer {answer_text(selected["answer"])} {correctness(selected)}')
  if row.get('gold'):
    parts.append(f'right answer {answer_text(row["gold"])}')
  return ' · '.join(parts)


def answer_text(answer: Any) -> str:
  """Returns an answer as code, its middle left out where it is long; '–' of None."""
  return or_dash(answer, lambda x: f'<code>{escaped(shorten(str(x), MAX_ANSWER))}</code>')


def correctness(selected: Mapping[str, Any]) -> str:
  """Returns the sign of a chosen end, coloured; '' where the right answer is not known."""
  is_correct = selected.get('is_correct')
  if is_correct is None:
    return ''
  verdict = 'correct' if is_correct else 'wrong'
  return word_badge(verdict, SIGNS[verdict])


def is_graded(tree: Mapping[str, Any]) -> bool:
  """Returns whether the right answer was known when the tree grew."""
  return not any(node['verdict'] == 'ungraded' for node in tree['nodes'])


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
  entries = {escaped(name): text for name, text in entries.items()}
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
