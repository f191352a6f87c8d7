"""A language model with known success probabilities: an `expand_fn` in numpy, without a decoder.

The last token of a segment is the state of a problem: OPEN until the step at which it is decided,
then GOOD or BAD for ever. With R_d the chance to be decided by depth d and p that of GOOD, a
node's chance of success is a martingale, and the share of outcome variance that is open at depth d
is U_d = 1 - R_d exactly.
"""

from __future__ import annotations

import concurrent.futures

import jax
import numpy as np

from ds_jax import sharding
from ds_jax.interfaces import Segments
from ds_jax.search.engine.engine import Engine, run
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.engine.keys import Purpose, base_key_data
from ds_jax.types import Problem, Verdict

OPEN, GOOD, BAD = range(3)  # the state is the last token modulo 3, the depth its quotient
TOKENS = 2  # of every segment


def late(depth):
  """R_d, `[depth + 1]`: 80 % of the variance is decided in the last 2 steps."""
  return np.append(np.linspace(0, 0.2, depth - 1), [0.6, 1.0])


def early(depth):
  """80 % in the first 2 steps."""
  return np.append([0, 0.4], np.linspace(0.8, 1.0, depth - 1))


def expand_fn(resolved, success, end_rate=0.0):
  """An ExpandFn whose children of a node at depth d are decided with the chance that R says.

  A share `end_rate` of segments is one end token that also tells the state.
  """
  hazard = np.append(np.diff(resolved) / np.maximum(1 - resolved[:-1], 1e-12), 1.0)

  def child(state, depth, key, index):
    draws = np.random.default_rng([*key.tolist(), index]).random(3)
    if state == OPEN and draws[0] < hazard[depth]:
      state = GOOD if draws[1] < success else BAD
    return state, draws[2] < end_rate

  def expand(params, slots, plan):
    del params
    shape = (*plan.append_child.shape, 1, TOKENS)
    fields = {name: np.zeros(shape, np.float32) for name in Segments._fields}
    tokens, is_ended = np.zeros(shape, np.int32), np.zeros(shape[:2], bool)
    is_active = np.asarray(plan.num_children) > 0
    for b in np.flatnonzero(is_active):
      depth, state = divmod(int(plan.pending_token[b]), 3)
      state, is_ended[b, 0] = child(state, depth, plan.key[b], int(plan.first_child[b]))
      tokens[b] = 3 * (depth + 1) + state
    length = is_active[:, None] * np.where(is_ended, 1, TOKENS).astype(np.int32)
    return slots, Segments(**fields)._replace(tokens=tokens, length=length, is_ended=is_ended)

  return expand


def verify(items):
  futures = []
  for _, text in items:
    futures.append(concurrent.futures.Future())
    futures[-1].set_result(Verdict.CORRECT if int(text) % 3 == GOOD else Verdict.WRONG)
  return futures


def grow(
  config,
  resolved,
  success,
  num_trees,
  *,
  plan=None,
  seed=0,
  end_rate=0.0,
  verify_fn=verify,
  order=1,
):
  """Trees of `num_trees` problems, in their order, under any policy of width 1, and counters."""
  engine = Engine(
    config=config,
    mesh=sharding.make_mesh(devices=jax.devices()[:1]),
    expand_fn=expand_fn(resolved, success, end_rate),
    make_slots=lambda: None,
    verify_fn=verify_fn,
    decode_text=lambda tokens: str(int(tokens[-1])),
  )
  jobs = [Job(Problem(str(i), '', ''), np.zeros(1, np.int32)) for i in range(num_trees)]
  found = {}
  counters = run(
    engine,
    None,
    jobs[::order],
    base_key_data(seed, Purpose.SEARCH, 0, 0),
    plan=plan,
    on_finish=lambda tree: found.__setitem__(tree.problem_id, tree),
  )
  return [found[str(i)] for i in range(num_trees)], counters
