"""Trees to look at: what a page shows, how it is folded, and that hostile text stays text."""

from __future__ import annotations

import base64
import collections
import hashlib
import html.parser
import re

import pytest
from made_tree import made_row, row_of_parents

from ds_jax.report import tree_shape, tree_signs, tree_view
from ds_jax.report.page import render_page
from ds_jax.report.tree_page import overview_page, tree_page
from ds_jax.report.tree_view import tree_fragment
from ds_jax.search.selection import How
from ds_jax.types import Verdict

HOSTILE = (
  '\x1b[2J\u202e\x00\ud800</span></summary></details></section><script>alert(1)</script>'
  '<img src=x onerror=alert(1)>"\'&amp;<style>*{display:none}</style>\n--> \u2066 end'
)


class Page(html.parser.HTMLParser):
  """What a reader of HTML makes of a page."""

  def __init__(self, text: str):
    super().__init__()
    self.tags: collections.Counter[str] = collections.Counter()
    self.ids: list[str] = []
    self.links: list[str] = []
    self.opened: list[str] = []  # ids of nodes that are not folded
    self.attributes: set[str] = set()
    self.texts: dict[str, str] = {}  # by id of the node
    self.depth = self.max_depth = 0  # of <details>
    self._node, self._in_text = '', False
    self.feed(text)
    self.close()

  def handle_starttag(self, tag, attrs):
    fields = dict(attrs)
    self.tags[tag] += 1
    self.attributes |= set(fields)
    self.depth += tag == 'details'
    self.max_depth = max(self.max_depth, self.depth)
    if 'id' in fields:
      self.ids.append(fields['id'])
    if tag == 'a':
      self.links.append(fields['href'])
    if tag == 'details' and 'id' in fields:
      self._node = fields['id']
      if 'open' in fields:
        self.opened.append(fields['id'])
    if tag == 'nav':
      self._node = ''
    if tag == 'span' and self._node and fields.get('class', '').split()[0] == 't':
      self._in_text = True
      self.texts[self._node] = ''

  def handle_endtag(self, tag):
    self.depth -= tag == 'details'
    self._in_text = self._in_text and tag != 'span'

  def handle_data(self, data):
    if self._in_text:
      self.texts[self._node] += data


# All that a page may be made of; <script>, <img>, <link>, <iframe>, … are not.
TAGS = set(
  'html head meta title style body section header h1 h2 h3 p a span code details summary div i b '
  'em dl dt dd nav ol li main label input table thead tbody tr th td'.split()
)
ATTRIBUTES = set(
  'lang charset http-equiv content name class id href title open scope type value checked'.split()
)


def html_of(row, node):
  """The row of a node."""
  return re.search(f'<details id="tree-n{node}" .*?</summary>', tree_page(row), re.DOTALL)[0]


def nodes_named(row, *names):
  return {f'tree-n{node["id"]}' for node in row['tree']['nodes'] if all(map(node.get, names))}


def test_every_node_and_choice_has_its_place_and_links_lead_there():
  row = made_row(400)
  page = Page(tree_page(row, links={'all problems': '../trees.html'}))
  nodes = row['tree']['nodes']
  assert len(page.ids) == len(set(page.ids))
  assert {f'tree-n{node["id"]}' for node in nodes} <= set(page.ids)
  choices = [choice for node in nodes for choice in node['chosen']]
  assert len(choices) == row['tree']['statistics']['expansions'] > 20
  in_order = [name for name in page.ids if re.fullmatch(r'tree-c\d+', name)]
  assert in_order == [f'tree-c{i + 1}' for i in range(len(choices))]
  assert page.links[0] == '../trees.html'
  assert {link[1:] for link in page.links[1:]} <= set(page.ids)
  for node in nodes[1:]:
    assert page.texts[f'tree-n{node["id"]}'] == node['text']


def test_a_row_says_all_of_its_node():
  row = made_row(80, num_collected=1)
  (end,) = row['tree']['collected']
  node = row['tree']['nodes'][end]
  node.update(visits=12, q=0.5, entropy=1.25, verdict='no_answer', reward=-0.5, num_correct=3)
  node.update(chosen=[{'iteration': 3, 'how': 'a new rule'}])
  line = html_of(row, end)
  text = re.sub(r'<[^>]*>', ' ', line)
  words = f'∅ no answer -0.50 ★ 1 ‹ 3 a new rule › 12 +0.50 1.25 3/{node["num_ends"]}'
  assert ' '.join(text.split()) == ' '.join([str(end), *node['text'].split(), words])
  assert ' class="p2 leaf on got" ' in line


def test_the_choice_before_and_the_next_one_are_linked():
  row = made_row(80)
  order = {c['iteration']: n['id'] for n in row['tree']['nodes'] for c in n['chosen']}
  expected = [f'#tree-n{order[1]}', '#tree-c2', f'#tree-n{order[3]}']
  assert Page(html_of(row, order[2])).links == expected


def test_collected_paths_are_open_at_first_and_the_rest_is_closed():
  row = made_row(80, num_collected=2)
  nodes, expected = row['tree']['nodes'], set()
  for end in row['tree']['collected']:
    while end is not None:
      expected.add(f'tree-n{end}')
      end = nodes[end]['parent']
  assert set(Page(tree_page(row)).opened) == expected


def test_of_many_collected_paths_only_some_are_open_right_ones_first():
  row = made_row(801, num_collected=200)
  nodes, children = row['tree']['nodes'], collections.Counter()
  for node in nodes[1:]:
    children[f'tree-n{node["parent"]}'] += 1
  opened = Page(tree_page(row)).opened
  assert sum(children[name] for name in opened) <= tree_shape.MAX_OPEN_ROWS
  ends = set(opened) & nodes_named(row, 'collected_rank')
  right = [end for end in row['tree']['collected'] if nodes[end]['num_correct']]
  assert ends and ends <= {f'tree-n{end}' for end in right}
  assert f'tree-n{right[0]}' in ends


def test_without_collected_ends_the_way_to_the_best_end_is_open():
  row = made_row(80, num_collected=0)
  nodes = row['tree']['nodes']
  best = max((n for n in nodes if n['is_terminal']), key=lambda n: n['q'])
  opened = Page(tree_page(row)).opened
  assert f'tree-n{best["id"]}' in opened and len(opened) == best['depth'] + 1
  assert Page(tree_page(row_of_parents([None, 0, 0]))).opened == ['tree-n0']


@pytest.mark.parametrize('where', ['texts', 'fields'])
def test_hostile_text_stays_text(where):
  row = made_row(60)
  nodes = row['tree']['nodes']
  for node in nodes[1:]:
    node['text'] = HOSTILE if where == 'texts' else node['text']
  if where == 'fields':
    row |= {'question': HOSTILE, 'gold': HOSTILE, 'selected': {'answer': HOSTILE}}
    row['tree'] |= {'problem_id': HOSTILE, 'statistics': {HOSTILE: 1.0, 'x': HOSTILE}}
    for node in nodes:
      node['chosen'] = [choice | {'how': HOSTILE} for choice in node['chosen']]
      node['verdict'] = HOSTILE if node['verdict'] else None
  for text in (
    tree_page(row),
    overview_page([row], ['trees/1.html'], title=HOSTILE),
    render_page([], {'trees': [row | {'title': HOSTILE, 'text': HOSTILE}]}, b''),
  ):
    page = Page(text)
    assert set(page.tags) - {'img'} <= TAGS
    assert page.attributes - {'src', 'alt'} <= ATTRIBUTES
    assert page.tags['img'] == text.count('<img src="data:') <= 1  # the report's picture
    assert page.depth == 0 and page.tags['section'] <= 1
    assert all(character.isprintable() or character == '\n' for character in text)
    text.encode()  # no halves of characters
  if where == 'texts':
    assert Page(tree_page(row)).texts['tree-n1'].startswith('\\x1b[2J\\u202e\\x00\\ud800</span>')


def test_only_the_style_of_the_page_is_allowed():
  for text in (tree_page(made_row(40)), overview_page([], [], title='none')):
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    (style,) = re.findall(r'<style>(.*?)</style>', text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.split('; ') == [
      "default-src 'none'",
      f"style-src 'sha256-{digest}'",
      "base-uri 'none'",
      "form-action 'none'",
    ]
    assert 'url(' not in style and '@import' not in style and ' style="' not in text


def test_a_fragment_leaves_the_rest_of_its_page_alone():
  text = tree_fragment(made_row(40), name='tree-7')
  assert all(name.startswith('tree-7') for name in Page(text).ids)
  (style,) = re.findall(r'<style>(.*?)</style>', text, re.DOTALL)
  for selectors in re.findall(r'(?:^|\}|\{)\s*([^{}@;]+)\{', style):
    assert all('.ds-' in selector for selector in selectors.split(',')), selectors


def test_a_tree_alone_is_enough_for_a_fragment():
  text = tree_fragment({'tree': made_row(40)['tree']})
  assert 'right answer' not in text and 'made/1' in text


def test_long_texts_are_cut_with_a_note_and_a_large_tree_stays_small():
  long = 'head ' + 'a < b & ' * 10_000 + ' tail'
  row = made_row(401, text=lambda rng: long)
  text = tree_page(row)
  assert len(row['tree']['nodes']) == 401 and len(text.encode()) < 3e6
  shown = Page(text).texts['tree-n1']
  assert len(shown) < len(long) / 10
  assert re.fullmatch(r'head a < .* … [\d,]+ characters left out … .* tail', shown)
  left_out = int(re.search(r'([\d,]+) characters', shown)[1].replace(',', ''))
  note = f' … {left_out:,} characters left out … '
  assert len(shown) - len(note) + left_out == len(long)


def test_text_of_usual_length_is_shown_whole():
  words = 'as long as a segment of 256 tokens is ' * 30
  row = made_row(80, text=lambda rng: words)
  assert Page(tree_page(row)).texts['tree-n1'] == words


@pytest.mark.parametrize('has_side_branches', [False, True])
def test_a_deep_tree_is_not_nested_deeper_than_readers_can(has_side_branches):
  parents: list[int | None] = [None]
  for _ in range(1500):
    parent = max(0, len(parents) - 1 - has_side_branches)
    parents += [parent] * (1 + has_side_branches)
  page = Page(tree_page(row_of_parents(parents)))
  assert page.max_depth <= tree_view.MAX_NESTING and page.depth == 0
  assert [f'tree-n{i}' for i in sorted(range(len(parents)))] == sorted(
    page.texts, key=lambda name: int(name[6:])
  )


def test_only_children_stand_below_their_parent_without_indentation():
  chain, fork = (tree_page(row_of_parents(p)) for p in ([None, 0, 1], [None, 0, 0]))
  assert '<div class="k">' not in chain and fork.count('<div class="k">') == 1


def test_branches_that_grew_side_by_side_are_said_to():
  row = made_row(40)
  assert 'not by the clock' not in tree_page(row)
  for node in row['tree']['nodes']:
    node['chosen'] = [choice | {'how': 'rollout'} for choice in node['chosen']]
  assert 'not by the clock' in tree_page(row)


def test_every_verdict_has_a_sign_and_every_choice_is_explained():
  assert set(tree_signs.SIGNS) == {verdict.value for verdict in Verdict}
  assert len(set(tree_signs.SIGNS.values())) == len(Verdict)
  give_no_children = {How.DRAIN, How.DONE}
  assert set(tree_view.CHOICES) == {how.name.lower() for how in set(How) - give_no_children}


def test_what_was_not_graded_is_not_called_wrong():
  row = made_row(80)
  for node in row['tree']['nodes']:
    node['verdict'] = 'ungraded' if node['verdict'] else None
  row['selected']['is_correct'] = None
  for text in (tree_page(row), overview_page([row], ['1.html'], title='t')):
    body = text.split('<body')[1]
    assert 'w wrong' not in body and 'w ungraded' in body
  assert 'not solved</span>' not in tree_page(row)


def test_the_overview_has_a_line_for_each_tree():
  solved, failed = made_row(400), made_row(40, num_collected=0)
  failed['tree'] |= {'is_solved': False, 'problem_id': 'made/2'}
  failed['selected'] = None
  text = overview_page([solved, failed], ['t/1.html', 't/2.html'], title='Trees')
  page = Page(text)
  assert page.links == ['t/1.html', 't/2.html']
  first, second = re.findall(r'<tr class="(.*?)</tr>', text, re.DOTALL)
  assert first.startswith('correct') and 'made/1' in first and '3.2 s' in first
  assert second.startswith('wrong') and 'made/2' in second and '<td>– </td>' in second
  assert 'all (2)' in text and 'solved (1)' in text and 'not solved (1)' in text


def test_the_report_shows_its_trees_and_those_of_an_older_run_as_text():
  row = made_row(60) | {'title': 'made/1', 'text': 'as text'}
  page = render_page([], {'trees': [row, row, {'title': 'old', 'text': 'an older tree'}]}, b'')
  assert 'as text' not in page and '<pre>an older tree</pre>' in page
  names = Page(page).ids
  assert 'tree-0-n5' in names and 'tree-1-n5' in names and len(names) == len(set(names))
