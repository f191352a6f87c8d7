"""Replays an oracle folder through the production functions under the policy `faithful`.

  python tests/oracle_replay.py ../shared/oracle

Prints `family: N passed, M failed` for every family and the first difference of every failure;
exits 1 if there is any. The README of such a folder describes its records. Nothing of the search
is written again here: children go through `engine.expansion`, decisions through the policy, the
finished tree through `engine.host_tree`, `trajectories` and `train.advantages`, a loss through the
rows and the loss function of the update. Trees are as large as the records of the folder need.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from oracle_learner import RECORDED, close, equal, replay_advantage, replay_policy_loss

from ds_jax.config import SearchConfig, TrainConfig
from ds_jax.interfaces import Segments
from ds_jax.search.backup import backup
from ds_jax.search.engine.expansion import blank_children, cut_segments
from ds_jax.search.engine.host_tree import DeviceFields, HostTree, Job
from ds_jax.search.engine.slots import Request, Slot
from ds_jax.search.policies import POLICIES
from ds_jax.search.policies.base import Policy, no_forks
from ds_jax.search.policies.serial import step
from ds_jax.search.scores import path_uncertainty, uct
from ds_jax.search.selection import How, frontier
from ds_jax.search.settings import Settings, settings_from, width_at
from ds_jax.search.trajectories import trajectories
from ds_jax.search.tree import Tree, add_children, children_of, fresh_nodes, new_tree, path_to
from ds_jax.train.advantages import group_advantages, node_rewards, overlong_penalty, soft_clip
from ds_jax.types import Problem, Verdict
from ds_jax.verify import grade_released

FAITHFUL, DEEPSEARCH = POLICIES['faithful'], POLICIES['deepsearch']
PLAN = no_forks(1)  # the serial policies fork nothing
VERDICT = {'correct': Verdict.CORRECT, 'wrong': Verdict.WRONG, 'none': Verdict.NO_ANSWER}
SKIPPED = {'advantage (alpha_scale_0.5, mean_std)': 'no setting: the recipes do not use them'}


@dataclasses.dataclass(frozen=True)
class Sizes:
  """Room for the largest recorded tree of a folder: one compiled program serves all of them."""

  nodes: int
  width: int
  collected: int
  depth: int

  @classmethod
  def of(cls, traces: Sequence[dict[str, Any]]) -> Sizes:
    nodes, width, collected, depth = 1, 1, 1, 1
    for trace in traces:
      config = trace['config']
      expanded = [len(event['children']) for event in trace['events'] if event['t'] == 'expand']
      nodes = max(nodes, 1 + sum(expanded))
      width = max(width, config['expansion_width'], *expanded)
      collected = max(collected, config['terminate_num'])
      depth = max(depth, config['max_depth'])
    return cls(nodes, width, collected, depth)

  def new_tree(self) -> Tree:
    return new_tree(
      self.nodes,
      self.collected,
      jnp.zeros(2, jnp.uint32),
      max_depth=self.depth,
      max_width=self.width,
    )


def search_config(config: dict[str, Any]) -> SearchConfig:
  """An oracle config as ours."""
  dynamic = config['dynamic_width'] or {}
  return SearchConfig(
    policy='faithful',
    width=config['expansion_width'],
    width_decay=dynamic.get('decay_factor', 0),
    min_width=dynamic.get('min_width', 1),
    max_depth=config['max_depth'],
    segment_length=config['step_len'],
    num_trajectories=config['terminate_num'],
    max_expansions=2**30,
    backtrack=config['backtrace_method'],
    frontier_only=config['frontier_only'],
    depth_bonus={'constant': 'linear'}.get(config['depth_bonus_type'], config['depth_bonus_type']),
    uncertainty='sampled' if config['uncertainty'] else 'off',
    count_end_token=not config['pad_is_eos'],
    lambda_uct=config['lambda_uct'],
    incomplete_score=config['incomplete_score'],
    backup_threshold=config['backup_threshold'],
    **{f'lambda{i}': config[f'lambda{i}'] for i in range(1, 5)},
  )


@jax.jit
def jitted_add(tree: Tree, node: jax.Array, children: Any) -> Tree:
  return add_children(tree, node, children)


@jax.jit
def jitted_step(tree: Tree, is_fresh: jax.Array, settings: Settings, parent: jax.Array) -> Any:
  """One recorded backup event: (its candidates, the tree after it, what it was decided by)."""
  uncollected = children_of(tree, tree.policy.current) & ~tree.nodes.is_collected
  candidates = jnp.where(is_fresh, fresh_nodes(tree), uncollected)
  tree = step(tree, jnp.bool_(True), settings).replace(num_fresh=jnp.int32(0))
  scores = tree.policy.score
  values = {
    'term': path_uncertainty(tree.nodes, settings),
    'uct': uct(tree.nodes, tree.nodes.visit_count[parent], settings),
    'scores': scores,
  }
  eligible = {
    is_strict: frontier(tree, scores, jnp.bool_(is_strict)) for is_strict in (False, True)
  }
  return candidates, tree, values, eligible


@functools.partial(jax.jit, static_argnums=0)
def jitted_allocate(policy: Policy, tree: Tree, settings: Settings) -> Any:
  """All events from one expansion to the next, as the engine runs them."""
  return policy.allocate(tree, settings, PLAN)


def children_of_event(
  event: dict[str, Any], host: HostTree, config: SearchConfig, *, max_width: int
) -> Any:
  """The recorded children, by the way that decoded ones take."""
  children = event['children']
  shape = (1, len(children), config.segment_length)
  segments = Segments(**{name: np.zeros(shape, np.float32) for name in Segments._fields})._replace(
    tokens=np.zeros(shape, np.int32),
    length=np.array([[len(child['lp']) for child in children]], np.int32),
    is_ended=np.array([[bool(child['eos']) for child in children]]),
  )
  for j, child in enumerate(children):
    segments.logprobs[0, j, : len(child['lp'])] = [np.nan if x is None else x for x in child['lp']]
  request = Request(0, event['node'], 0, len(children), np.zeros(2, np.uint32))
  expansion = cut_segments(segments, 0, request, slot=Slot(), tree=host, config=config)
  for j in expansion.ends():
    expansion.futures[j] = concurrent.futures.Future()
    expansion.futures[j].set_result(VERDICT[children[j]['ans']])
  expansion.settle(host, config)
  padded = blank_children((), max_width)
  expansion.write(padded, ())
  return padded


def check_state(tree: Tree, event: dict[str, Any]) -> None:
  count, nodes = len(event['n']), tree.nodes
  equal('nodes', int(tree.num_nodes), count)
  equal('n', np.asarray(nodes.visit_count[:count]).tolist(), event['n'])
  close('q', nodes.value_sum[:count], event['q'])
  equal(
    'terminal', ''.join(map(str, np.asarray(nodes.is_terminal[:count], int))), event['terminal']
  )
  equal('collected', int(tree.num_collected), event['collected'])


def check_backup(tree: Tree, event: dict[str, Any], settings: Settings) -> Tree:
  equal('current node', int(tree.policy.current), event['cur'])
  candidates, tree, values, eligible = jitted_step(
    tree, event['trigger'] == 'expand', settings, np.int32(event.get('uct_parent') or 0)
  )
  equal('candidates', np.flatnonzero(candidates).tolist(), event['cand'])
  check_state(tree, event)
  check_values(tree, event, values, eligible)
  chosen = int(tree.collected[tree.num_collected - 1]) if event['chosen'] is not None else None
  equal('chosen end', chosen, event['chosen'])
  if 'error' not in event:
    equal('how', How(int(tree.policy.how)).name.lower(), event['how'])
    if event['next'] is not None:
      equal('next node', int(tree.policy.current), event['next'])
  return tree


def check_values(
  tree: Tree, event: dict[str, Any], values: dict[str, jax.Array], eligible: dict[bool, jax.Array]
) -> None:
  """What the decision was taken by: uncertainties, UCT and frontier scores."""
  for node, reward, entropy in event['term']:
    close(f'value of {node}', tree.nodes.reward[node], reward)
    close(f'U of {node}', values['term'][node], entropy)
  for node, score in event.get('uct') or []:
    equal(f'{node} is out', bool(tree.nodes.is_terminal[node]), score is None)
    if score is not None:
      close(f'UCT of {node}', values['uct'][node], score)
  if event.get('scores'):
    order = np.argsort(np.where(eligible[event['frontier_only']], tree.nodes.preorder, 1 << 30))
    count = int(eligible[event['frontier_only']].sum())
    equal('eligible, in scan order', order[:count].tolist(), [node for node, _ in event['scores']])
    close('scores', values['scores'][order[:count]], [score for _, score in event['scores']])


def replay_trace(trace: dict[str, Any], sizes: Sizes) -> None:
  """One search; AssertionError with the first difference."""
  config = search_config(trace['config'])
  settings = settings_from(config).replace(defects=FAITHFUL.defects)
  job = Job(Problem(trace['id'], '', ''), np.zeros(0, np.int32))
  host = HostTree(job, np.zeros(2, np.uint32), capacity=sizes.nodes)
  stepped = FAITHFUL.start(sizes.new_tree(), settings)
  whole, asked = stepped, (0, int(FAITHFUL.first_children(settings)))
  if not trace['events']:  # crashed before anything was generated; ours goes on
    widths = [int(width_at(np.int32(d), settings)) for d in range(config.max_depth)]
    equal('widths', all(config.min_width <= w <= config.width for w in widths), True)
    equal('root width', asked[1], config.width)
    return
  for i, event in enumerate(trace['events']):
    try:
      if event['t'] == 'expand':
        equal('expansion', (event['node'], len(event['children'])), asked)
        children = children_of_event(event, host, config, max_width=sizes.width)
        equal('tag', trace['tags'][event['node']].count('.'), host.depth[event['node']])
        node = np.int32(event['node'])
        stepped, whole = (jitted_add(tree, node, children) for tree in (stepped, whole))
        before, (whole, allocation) = whole, jitted_allocate(FAITHFUL, whole, settings)
        asked = (int(allocation.node[0]), int(allocation.num_children[0]))
      else:
        stepped = check_backup(stepped, event, settings)
    except AssertionError as e:
      raise AssertionError(f'event {i}: {" ".join(str(e).split())}') from e
  check_state(whole, trace['events'][-1])
  equal('done', (bool(whole.is_done), asked[1]), (True, 0))
  if trace['outcome'] == 'crash':
    check_goes_on(stepped, before, settings)
  fields = jax.device_get(DeviceFields.of(whole))
  check_trajectories(trace, host.finish(fields, is_depth_first=False))


def check_goes_on(stepped: Tree, before: Tree, settings: Settings) -> None:
  """Where the released code crashed, the default policy takes what was passed over."""
  equal('nothing to expand', bool(stepped.policy.is_exhausted), True)
  ours, allocation = jitted_allocate(DEEPSEARCH, before, settings)
  ends = int(ours.nodes.is_terminal.sum())
  equal('goes on to its end', (bool(ours.is_done), int(allocation.num_children.sum())), (True, 0))
  equal('collected by ours', int(ours.num_collected), min(ends, int(settings.num_trajectories)))


def check_trajectories(trace: dict[str, Any], tree: Any) -> None:
  recorded = trace['trajectories']
  equal('ends', tree.collected.tolist(), [t['terminal'] for t in recorded])
  found = [t for t in trajectories(tree, 0) if t.is_collected]
  config, limit = learner_settings(trace['config'])
  for ours, theirs in zip(found, recorded, strict=True):
    equal('path', ours.node_ids[1:].tolist(), theirs['path'])
    equal('n_tok', ours.node_lengths[1:].tolist(), theirs['n_tok'])
    equal('visits', tree.visit_count[ours.node_ids[1:]].tolist(), theirs['visits'])
    close('reward', ours.reward, theirs['reward'])
    close('q_raw', ours.node_values[1:], theirs['q_raw'])
    if trace['outcome'] != 'ok':
      continue
    equal('length', len(ours.tokens), theirs['length'])
    inner = soft_clip(ours.node_values[1:-1].astype(float), config.q_temperature, config.q_max)
    close('q_soft', np.append(inner, ours.node_values[-1]), theirs['q_soft'])
    close(
      'overlong',
      overlong_penalty(
        len(ours.tokens), limit, buffer=config.overlong_buffer, factor=config.overlong_factor
      ),
      theirs['overlong'],
    )
    close('node_reward', node_rewards(ours, config, limit)[1:], theirs['node_reward'])
  if trace['outcome'] == 'ok':
    check_advantages(trace, found, config, limit)


def check_advantages(
  trace: dict[str, Any], found: list[Any], config: TrainConfig, limit: int
) -> None:
  for field, normalization in (('adv_mean', 'mean_only'), ('adv_mean_std', 'standard')):
    ours = group_advantages(found, dataclasses.replace(config, normalization=normalization), limit)
    for mine, theirs in zip(ours.per_token, trace['trajectories'], strict=True):
      values = np.concatenate([np.full(n, v) for v, n in theirs[field]])
      padded = np.pad(mine, (0, limit - len(mine)))
      # A sigma of exactly 0 divides by 1e-6; in single precision it need not be exact.
      loose = field == 'adv_mean_std' and 'zero_sigma' in trace['features']
      rtol, atol = (0.2, 20.0) if loose else (RECORDED, RECORDED)
      close(field, padded, values, rtol=rtol, atol=atol)


def learner_settings(config: dict[str, Any]) -> tuple[TrainConfig, int]:
  """The learner's settings of a trace and its response limit."""
  overlong = config['overlong'] or {'len': 0, 'factor': 1.0}
  return TrainConfig(
    advantage='q_mean',
    ends='collected',
    uniform_trees='keep',
    q_temperature=config['adv_temperature'],
    q_max=config['q_max'],
    overlong_buffer=overlong['len'],
    overlong_factor=overlong['factor'],
  ), config['max_depth'] * config['step_len']


@jax.jit
def jitted_backup(tree: Tree, end: jax.Array, value: jax.Array, settings: Settings) -> Tree:
  return backup(tree, path_to(tree, end), value, settings=settings)


def replay_node_update(case: dict[str, Any], length: int) -> None:
  """One node of a chain in which node i has depth i; the end of each step is that of its depth."""
  index, depth = jnp.arange(length), case['node_depth']
  settings = settings_from(SearchConfig(backup_threshold=case['backup_threshold']))
  tree = new_tree(length, 1, jnp.zeros(2, jnp.uint32))
  chain = tree.nodes.replace(
    parent=index - 1, depth=index, preorder=index, subtree_size=length - index
  )
  tree = tree.replace(nodes=chain, num_nodes=jnp.int32(length))
  for end, value, visits, total in case['steps']:
    if end is None:
      visit_count = tree.nodes.visit_count.at[depth].add(1)
      tree = tree.replace(nodes=tree.nodes.replace(visit_count=visit_count))
    else:
      tree = jitted_backup(tree, np.int32(end), np.float32(value), settings)
    equal('n', int(tree.nodes.visit_count[depth]), visits)
    close('q', tree.nodes.value_sum[depth], total)


def chain_length(cases: Sequence[dict[str, Any]]) -> int:
  """Nodes of a chain that is as deep as the deepest end or node of the cases."""
  deepest = 0
  for case in cases:
    ends = [end for end, *_ in case['steps'] if end is not None]
    deepest = max(deepest, case['node_depth'], *ends)
  return deepest + 1


def replay_grading(case: dict[str, Any]) -> None:
  equal('pred', grade_released.parse_response(case['solution']), case['pred'])
  equal('parsed_truth', grade_released.normalize(case['truth']), case['parsed_truth'])
  verdict = grade_released.verify(case['truth'], case['solution'])
  equal('correct', verdict is Verdict.CORRECT, case['correct'])
  if verdict is Verdict.NO_ANSWER:
    equal('no answer', case['pred'], grade_released.INVALID)
  equal('score', 1 if verdict is Verdict.CORRECT else -1, case['score'])


def replay(folder: pathlib.Path) -> Iterator[tuple[str, str, str | None]]:
  """(family, id, first difference or None) of every record."""

  def attempt(family: str, name: str, function: Callable[[Any], None], record: Any):
    try:
      function(record)
    except AssertionError as e:
      return family, name, ' '.join(str(e).split())
    return family, name, None

  traces = [json.loads(line) for line in (folder / 'traces.jsonl').open()]
  of_trace = functools.partial(replay_trace, sizes=Sizes.of(traces))
  for trace in traces:
    yield attempt(trace['family'], trace['id'], of_trace, trace)
  updates = json.loads((folder / 'node_update.json').read_text())['cases']
  of_update = functools.partial(replay_node_update, length=chain_length(updates))
  for i, case in enumerate(updates):
    yield attempt('node_update', str(i), of_update, case)
  for i, case in enumerate(json.loads((folder / 'advantage.json').read_text())['cases']):
    yield attempt('advantage', str(i), replay_advantage, case)
  losses = json.loads((folder / 'policy_loss.json').read_text())
  settings = functools.partial(replay_policy_loss, settings=losses['settings'])
  for i, case in enumerate(losses['cases']):
    yield attempt('policy_loss', f'{i} {case["kind"]}', settings, case)
  if (folder / 'grading.json').exists():
    for i, case in enumerate(json.loads((folder / 'grading.json').read_text())['cases']):
      yield attempt('grading', str(i), replay_grading, case)


def main(arguments: list[str]) -> int:
  if len(arguments) != 1 or not (pathlib.Path(arguments[0]) / 'traces.jsonl').exists():
    print('usage: oracle_replay.py DIR   (a folder with traces.jsonl, node_update.json, …)')
    return 2
  passed, failed = collections.Counter(), collections.Counter()
  for family, name, difference in replay(pathlib.Path(arguments[0])):
    (failed if difference else passed)[family] += 1
    if difference:
      print(f'{family} {name}: {difference[:600]}')
  for family in sorted({*passed, *failed}):
    print(f'{family}: {passed[family]} passed, {failed[family]} failed')
  for family, reason in SKIPPED.items():
    print(f'{family}: skipped ({reason})')
  return int(bool(failed))


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
