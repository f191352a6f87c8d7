"""A language model with known success probabilities: an `expand_fn` in numpy, without a decoder.

The last token of a segment is the state of a problem: OPEN until the step at which it is decided,
then GOOD or BAD for ever. With R_d the chance to be decided by depth d and p that of GOOD, a
node's chance of success is a martingale, and the share of outcome variance that is open at depth d
is U_d = 1 - R_d exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np

from ds_jax import sharding
from ds_jax.config import SearchConfig
from ds_jax.interfaces import ExpandFn, Segments, SlotPlan, VerifyFn
from ds_jax.search.engine.counters import Counters
from ds_jax.search.engine.engine import Engine, run
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.engine.keys import Purpose, base_key_data
from ds_jax.search.policies.base import Plan
from ds_jax.types import FinishedTree, Problem, Verdict

OPEN, GOOD, BAD = range(3)  # the state is the last token modulo 3, the depth its quotient
TOKENS = 2  # of every segment


def late(depth: int) -> np.ndarray:
  """R_d, `[depth + 1]`: 80 % of the variance is decided in the last 2 steps."""
  return np.append(np.linspace(0, 0.2, depth - 1), [0.6, 1.0])


def early(depth: int) -> np.ndarray:
  """80 % in the first 2 steps."""
  return np.append([0, 0.4], np.linspace(0.8, 1.0, depth - 1))


def expand_fn(resolved: np.ndarray, success: float, end_rate: float = 0.0) -> ExpandFn:
  """An ExpandFn whose children of a node at depth d are decided with the chance that R says.

  A share `end_rate` of segments is one end token that also tells the state.
  """
  hazard = np.append(np.diff(resolved) / np.maximum(1 - resolved[:-1], 1e-12), 1.0)

  def child(state: int, depth: int, key: np.ndarray, *, index: int) -> tuple[int, bool]:
    draws = np.random.default_rng([*key.tolist(), index]).random(3)
    if state == OPEN and draws[0] < hazard[depth]:
      state = GOOD if draws[1] < success else BAD
    return state, draws[2] < end_rate

  def expand(params: Any, slots: Any, plan: SlotPlan) -> tuple[Any, Segments]:
    del params
    shape = (*plan.append_child.shape, 1, TOKENS)
    tokens, is_ended = np.zeros(shape, np.int32), np.zeros(shape[:2], bool)
    is_active = np.asarray(plan.num_children) > 0
    for b in np.flatnonzero(is_active):
      depth, state = divmod(int(plan.pending_token[b]), 3)
      index = int(plan.first_child[b])
      state, is_ended[b, 0] = child(state, depth, plan.key[b], index=index)
      tokens[b] = 3 * (depth + 1) + state
    length = is_active[:, None] * np.where(is_ended, 1, TOKENS).astype(np.int32)
    nothing = np.zeros(shape, np.float32)
    return slots, Segments(
      tokens=tokens,
      logprobs=nothing,
      sampled_logprobs=nothing,
      entropies=nothing,
      length=length,
      is_ended=is_ended,
    )

  return expand


def verify(items: Sequence[tuple[str, str]]) -> list[Future[Verdict]]:
  """A VerifyFn: correct is what ended GOOD."""
  futures = []
  for _, text in items:
    future = Future()
    future.set_result(Verdict.CORRECT if int(text) % 3 == GOOD else Verdict.WRONG)
    futures.append(future)
  return futures


def grow(
  config: SearchConfig,
  resolved: np.ndarray,
  success: float,
  num_trees: int,
  *,
  plan: Plan | None = None,
  plans: Sequence[Plan | None] | None = None,
  seed: int = 0,
  end_rate: float = 0.0,
  verify_fn: VerifyFn = verify,
  order: int = 1,
) -> tuple[list[FinishedTree], Counters]:
  """Trees of `num_trees` problems, in their order, under any policy of width 1, and counters.

  Args:
    config: the search.
    resolved: R_d by depth, as `late` and `early` return it.
    success: p.
    num_trees: problems, one tree each.
    plan: where forks pay.
    plans: likewise, of each tree, for a policy that plans trees apart; None: it has none.
    seed: of the trees' keys.
    end_rate: share of segments that end early.
    verify_fn: another one may take its time.
    order: 1, or -1: the engine gets the problems in reverse.
  """
  engine = Engine(
    config=config,
    mesh=sharding.make_mesh(devices=jax.devices()[:1]),
    expand_fn=expand_fn(resolved, success, end_rate),
    make_slots=lambda: None,
    verify_fn=verify_fn,
    decode_text=lambda tokens: str(int(tokens[-1])),
  )
  jobs = []
  for i, own_plan in enumerate(plans or [None] * num_trees):
    jobs.append(Job(Problem(str(i), '', ''), np.zeros(1, np.int32), plan=own_plan))
  trees: dict[str, FinishedTree] = {}

  def keep(tree: FinishedTree) -> None:
    trees[tree.problem_id] = tree

  base_key = base_key_data(seed, Purpose.SEARCH, 0, 0)
  counters = run(engine, None, jobs[::order], base_key, plan=plan, on_finish=keep)
  return [trees[str(i)] for i in range(num_trees)], counters
