"""A right answer in a response that the depth limit cut off: it pays, or it is incomplete."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ds_jax.config import Config, SearchConfig
from ds_jax.evaluate.metrics import evaluation_metrics, is_cut_correct, outcome
from ds_jax.run.engines import direct_search
from ds_jax.search.engine.expansion import verdict_of_cut
from ds_jax.search.journal import tree_from_line, tree_to_line
from ds_jax.search.statistics import summarize
from ds_jax.search.trajectories import trajectories
from ds_jax.testing import scripted_model, tiny
from ds_jax.testing.tiny import assert_same_tree
from ds_jax.types import Verdict

DEPTH = 4
CONFIG = SearchConfig(
  policy='direct',
  num_slots=4,
  width=1,
  width_decay=0,
  max_depth=DEPTH,
  segment_length=scripted_model.TOKENS,
  num_trajectories=4,
  max_expansions=64,
  incomplete_score=-0.25,
)
ENDED_LENGTH = 1  # tokens of the last segment of a response that ends; a cut one has more


@pytest.mark.parametrize(
  'verdict, paid, unpaid',
  [
    (Verdict.CORRECT, Verdict.CORRECT, Verdict.INCOMPLETE),
    (Verdict.NO_ANSWER, Verdict.INCOMPLETE, Verdict.INCOMPLETE),
    *((v, v, v) for v in (Verdict.WRONG, Verdict.TIMEOUT, Verdict.ERROR, Verdict.DEGENERATE)),
    (Verdict.UNGRADED, Verdict.UNGRADED, Verdict.UNGRADED),
    (None, None, None),
  ],
)
def test_verdicts_on_what_was_cut_off(verdict, paid, unpaid):
  assert verdict_of_cut(verdict, pays=True) is paid
  assert verdict_of_cut(verdict, pays=False) is unpaid


def grow(**changes):
  """Rollouts of which some end before the limit; half of those that are decided are right."""
  config = dataclasses.replace(CONFIG, **changes)
  trees, _ = scripted_model.grow(
    config, scripted_model.early(DEPTH), 0.5, 12, end_rate=0.2, verify_fn=scripted_model.verify
  )
  return trees


def ends(tree):
  """(node, whether it was cut off, whether its text is right) of every end."""
  found = []
  for node in np.flatnonzero(tree.is_terminal).tolist():
    tokens = tree.tokens[tree.node_slice(node)]
    is_right = int(tokens[-1]) % 3 == scripted_model.GOOD
    found.append((node, len(tokens) > ENDED_LENGTH, is_right))
  return found


@pytest.mark.parametrize('cut_ends', ['incomplete', 'graded'])
def test_a_right_answer_that_is_cut_off_pays_or_not(cut_ends):
  kinds = set()
  for tree in grow(cut_ends=cut_ends):
    num_right = 0
    for node, is_cut, is_right in ends(tree):
      kinds.add((is_cut, is_right))
      pays = is_right and not (is_cut and cut_ends == 'incomplete')
      num_right += pays
      wanted, reward = 'wrong', -1.0
      if pays:
        wanted, reward = 'correct', 1.0
      elif is_right:
        wanted, reward = 'incomplete', -0.25
      assert (tree.verdict[node], float(tree.reward[node])) == (wanted, reward)
    assert int(tree.num_correct[0]) == num_right
    assert sum(t.is_correct for t in trajectories(tree, 0)) == num_right
  assert len(kinds) == 4  # every case was met


@pytest.fixture(scope='module')
def grown():
  """The same problems under both settings: their trees, and single rollouts."""
  found = {}
  for cut_ends in ('incomplete', 'graded'):
    search = dataclasses.replace(tiny.SEARCH, cut_ends=cut_ends)
    alone = dataclasses.replace(search, policy='direct', width=1, num_trajectories=1)
    trees, _ = tiny.grow(tiny.make_engine(search), tiny.make_jobs(8))
    rollouts, _ = tiny.grow(tiny.make_engine(alone), tiny.make_jobs(24))
    found[cut_ends] = list(trees.values()), list(rollouts.values())
  return found


def count_cut_correct(trees):
  """Ends without an end token whose text the scripted verifier finds right."""
  count = 0
  for tree in trees:
    for node in np.flatnonzero(tree.is_terminal).tolist():
      tokens = tree.along_path(tree.tokens, node)
      text = ' '.join(map(str, tokens.tolist()))
      verdict = tiny.scripted_verdict(tree.problem_id.removeprefix('p'), text)
      count += verdict is Verdict.CORRECT and tokens[-1] != tiny.STOP_ID
  return count


@pytest.mark.parametrize('cut_ends', ['incomplete', 'graded'])
def test_what_was_cut_off_with_a_right_answer_is_counted(grown, cut_ends):
  trees, _ = grown[cut_ends]
  again = [tree_from_line(tree_to_line(tree)) for tree in trees]  # as from a journal
  for tree, copy in zip(trees, again, strict=True):
    assert_same_tree(tree, copy)
  metrics = summarize(again, tiny.SEARCH.max_depth, stop_ids=[tiny.STOP_ID])
  num_ends = sum(int(tree.is_terminal.sum()) for tree in trees)
  assert metrics['search/cut_correct_share'] == count_cut_correct(trees) / num_ends > 0
  is_noted = any('cut_correct' in tree.statistics for tree in trees)
  assert is_noted == (cut_ends == 'incomplete')  # else journals are what they were


def test_evaluations_count_what_the_setting_says_and_show_the_rest(grown):
  found = {}
  for cut_ends, (_, rollouts) in grown.items():
    rows = [outcome(tree, [tiny.STOP_ID]) for tree in rollouts]
    found[cut_ends] = evaluation_metrics(rows)
    share = count_cut_correct(rollouts) / len(rollouts)
    assert found[cut_ends]['evaluate/cut_correct_share'] == share > 0
  by_answer = found['graded']['evaluate/pass_at_1']
  assert found['incomplete']['evaluate/pass_at_1'] + share == pytest.approx(by_answer)
  assert found['incomplete']['evaluate/cut_share'] == found['graded']['evaluate/cut_share']


def test_rows_of_older_versions_graded_what_was_cut_off():
  row = {'verdict': 'correct', 'is_cut': True}
  assert is_cut_correct(row) and not is_cut_correct(row | {'is_cut': False})
  assert not is_cut_correct({'verdict': 'incomplete', 'is_cut': True})


@pytest.mark.parametrize(
  'policy, cut_ends, of_rollouts',
  [
    ('faithful', 'incomplete', 'graded'),  # the released code's
    ('deepsearch', 'incomplete', 'incomplete'),
    ('deepsearch', 'graded', 'graded'),
  ],
)
def test_filter_and_evaluation_follow_the_search(policy, cut_ends, of_rollouts):
  search = SearchConfig(policy=policy, cut_ends=cut_ends)
  assert direct_search(Config(search=search)).cut_ends == of_rollouts


def test_faithful_pays_them_as_released():
  search = dataclasses.replace(tiny.SEARCH, policy='faithful')
  trees, _ = tiny.grow(tiny.make_engine(search), tiny.make_jobs(8))
  paid = sum(tree.num_cut_correct([tiny.STOP_ID]) for tree in trees.values())
  assert paid > 0 and not any('cut_correct' in tree.statistics for tree in trees.values())
