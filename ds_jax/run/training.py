"""The run: filter the hard set, search, learn, re-filter; resumable at any moment.

The state is the newest committed checkpoint plus the journals of finished trees. Everything that
influences the next step is in it, and each step is a function of it, so that a run that was
stopped ends as one that was not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence

import numpy as np

from ds_jax.checks import InputError
from ds_jax.config import num_updates, response_limit
from ds_jax.evaluate.metrics import count_correct, evaluation_metrics, pass_rates
from ds_jax.interfaces import SilentProgress
from ds_jax.model.decoder import Decoder, abstract_decoder
from ds_jax.report.metrics import MetricsWriter, NoMetrics
from ds_jax.run.checkpoint import Checkpointer
from ds_jax.run.durable import write_atomically
from ds_jax.run.growing import rollout_jobs, run_journaled
from ds_jax.run.sampler import Sampler, next_batch
from ds_jax.run.session import Runtime, model_folder
from ds_jax.run.state import RunState
from ds_jax.run.workdir import Stopped, StoppedAlone
from ds_jax.search.engine.counters import Counters
from ds_jax.search.engine.engine import Engine, Interrupted
from ds_jax.search.engine.host_tree import Job
from ds_jax.search.engine.keys import Purpose, base_key_data
from ds_jax.search.journal import Journal
from ds_jax.search.policies.base import ForkPlan
from ds_jax.sharding import local_view, num_slot_shards
from ds_jax.train.batch import Batch, pack, plain_examples, row_shape
from ds_jax.train.curriculum import hard_problems
from ds_jax.train.optimizer import make_optimizer
from ds_jax.train.replay import ReplayBuffer, Solution
from ds_jax.train.rescore import importance_metrics, rescore, score_solutions
from ds_jax.train.sft import Pairs, imitation_loss, worked_solutions
from ds_jax.train.state import TrainState, abstract_state, init_state, search_params
from ds_jax.train.step import make_learner, policy_loss_fn
from ds_jax.train.trees import pack_minibatches
from ds_jax.types import FinishedTree, Trajectory

# An update that has begun to change the parameters may go on this long after a request to stop.
UPDATE_GRACE = 15.0  # seconds


class Training:
  """One run from its newest checkpoint to its end; `run` is the whole story."""

  def __init__(self, runtime: Runtime):
    config = runtime.config
    self.runtime, self.config = runtime, config
    self.train_prompts = {p.id: (p, tokens) for p, tokens in runtime.prompts('train')}
    self.eval_prompts = runtime.prompts('eval')[: config.evaluate.num_problems or None]
    self.optimizer = make_optimizer(config.train, num_updates(config))
    self.rows = row_shape(config.train, num_slot_shards(runtime.mesh))
    self.worked: Pairs = {}
    if config.train.objective == 'imitation':
      self.worked = worked_solutions(
        self.train_prompts,
        runtime.tokenizer.encode_response,
        self.rows.row_length,
        runtime.progress.note,
      )
      self.train_prompts = {name: self.train_prompts[name] for name in self.worked}
    loss_fn = imitation_loss if self.worked else policy_loss_fn(config.train)
    self.learner = make_learner(
      self.optimizer,
      runtime.mesh,
      micro_rows=self.rows.micro_rows,
      loss_fn=loss_fn,
      temperature=config.sampling.temperature or 1.0,
      frozen=config.train.frozen,
      before_pass=self.poll,
    )
    self.sampler = Sampler(runtime, self.train_prompts, grow=self.grow, score=self.score)
    with contextlib.ExitStack() as opened:  # closed if a later line refuses the run
      self.checkpointer = Checkpointer(
        runtime.workdir.checkpoints,
        config.checkpoint.keep,
        note=runtime.progress.note,
        keep_best=config.checkpoint.keep_best,
      )
      opened.callback(self.checkpointer.close)
      self.metrics = (
        NoMetrics()
        if runtime.team.index
        else MetricsWriter(runtime.workdir.root, config.log.tensorboard)
      )
      opened.callback(self.metrics.close)
      self.state, self.host = self.restore()
      self.reference = (
        runtime.load_decoder(model_folder(config, runtime.workdir))
        if config.train.kl_coefficient
        else None
      )  # the policy it started from
      self.metrics.cut(self.host.metrics_size)
      self._opened = opened.pop_all()
    self.journals: list[Journal] = []  # of finished work, which the next checkpoint covers
    self.covered: list[Journal] = []  # by the checkpoint that is being written
    self.in_flight: list[Journal] = []  # of the step under way
    self.is_mid_step = False  # the parameters have moved on from the host's state
    self.asked_at: float | None = None  # when an update first saw that it should stop
    self._search_form: tuple[int, Decoder] | None = None

  def run(self) -> RunState:
    """Goes on to the end.

    Raises:
      Stopped: after saving, if asked to stop.
      SaveError: if a checkpoint cannot be written; the one before is good.
      InputError: after saving, if no gradient is finite any more.
    """
    self.evaluate('before')
    rounds = self.config.curriculum.round_steps
    while self.host.round_index < len(rounds):
      if not self.filter_hard():
        self.runtime.progress.note(
          f'Round {self.host.round_index}: no problem is hard any more '
          f'(pass@1 below {self.config.curriculum.hard_threshold}); training ends here.'
        )
        break
      last = sum(rounds[: self.host.round_index + 1])
      self.runtime.progress.start(
        f'train, round {self.host.round_index}', rounds[self.host.round_index]
      )
      while self.host.step < last:
        self.stop_if_asked()
        self.evaluate_if_due()
        self.train_step()
        self.stop_if_broken()
        if self.host.step % self.config.checkpoint.every_steps == 0 and self.host.step < last:
          self.save()
      self.runtime.progress.finish()
      self.end_round()
    self.evaluate('after')
    self.commit()
    self.export_solutions()
    return self.host

  def close(self) -> None:
    """Closes files; use `contextlib.closing`."""
    self._opened.close()

  def stop_if_asked(self) -> None:
    """Saves and raises Stopped, if the run was asked to stop: all processes at the same step."""
    if any(self.runtime.team.gather(b'1' if self.runtime.should_stop() else b'')):
      self.save()
      self.commit()
      raise Stopped

  def poll(self) -> None:
    """Stops an update if the run was asked to stop: before it begins, or when it takes too long.

    Raises:
      Stopped: after saving the state before the step; its trees are journaled.
      StoppedAlone: amid the updates of a step, or in one of several processes.
    """
    if not self.runtime.should_stop():
      return
    if not self.is_mid_step and self.runtime.team.count == 1:
      self.stop_if_asked()
    self.asked_at = self.asked_at or time.monotonic()
    if time.monotonic() > self.asked_at + UPDATE_GRACE:
      raise StoppedAlone

  def stop_if_broken(self) -> None:
    """Saves and raises InputError after too many gradients in a row that are not finite."""
    count = self.host.skipped_in_row
    if count >= self.config.train.max_skipped:
      self.save()
      self.commit()
      raise InputError(
        f'The last {count} gradients were not finite (train.max_skipped = '
        f'{self.config.train.max_skipped}). None was applied, and step {self.host.step} is '
        'saved. See what grew before (train/grad_norm, train/ratio_max_log in metrics.jsonl), '
        'and start again with a lower train.learning_rate or train.max_grad_norm.'
      )

  def restore(self) -> tuple[TrainState, RunState]:
    """The newest good checkpoint, else the initial model."""
    runtime = self.runtime
    if self.checkpointer.latest() is None:
      folder = model_folder(self.config, runtime.workdir)
      cap = self.config.curriculum.max_cached_per_problem
      state = init_state(runtime.load_decoder(folder), self.optimizer, runtime.mesh)
      return state, RunState(replay=ReplayBuffer(cap), found=ReplayBuffer(cap))
    abstract = abstract_state(
      abstract_decoder(runtime.decoder_config), self.optimizer, runtime.mesh
    )
    state, host = self.checkpointer.restore(abstract)
    host = RunState.from_json(host)
    for path in runtime.workdir.journal('').parent.glob('*.process_*'):
      if host.covers(path.name.split('.')[0]):  # a kill came before it was removed
        path.unlink(missing_ok=True)
    runtime.progress.note(f'Continuing at round {host.round_index}, step {host.step}.')
    return state, host

  def settle(self) -> None:
    """The step under way is part of the state now."""
    self.journals += self.in_flight
    self.in_flight = []

  def save(self, score: float | None = None) -> None:
    """Begins a checkpoint of the present state; `commit` waits until it is written."""
    self.commit()
    self.host.num_saves += 1
    self.host.metrics_size = self.metrics.size()
    self.checkpointer.begin_save(self.host.num_saves, self.state, self.host.to_json(), score)
    self.covered, self.journals = self.journals, []

  def commit(self) -> None:
    """Waits for the checkpoint being written; journals that it covers are removed after that."""
    self.checkpointer.wait()
    for journal in self.covered:
      journal.remove()
    self.covered = []

  def params(self) -> Decoder:
    """The parameters in the form for search, on this process's devices; made once per step."""
    runtime = self.runtime
    if self._search_form is None or self._search_form[0] != self.host.step:
      whole = search_params(self.state, runtime.mesh, self.config.model.compute_dtype)
      self._search_form = (self.host.step, local_view(whole, runtime.mesh, runtime.search_mesh))
    return self._search_form[1]

  def grow(
    self,
    engine: Engine,
    jobs: Sequence[Job],
    purpose: Purpose,
    name: str,
    phase: str | None,
    plan: ForkPlan | None = None,
  ) -> tuple[list[FinishedTree], Counters]:
    """Grows trees for jobs; what is finished is journaled. Saves and stops when asked to."""
    journal = Journal(self.runtime.workdir.journal(name, self.runtime.team.index))
    self.in_flight.append(journal)
    key = base_key_data(self.config.seed, purpose, self.host.round_index, self.host.step)
    progress = self.runtime.progress if phase else SilentProgress()
    try:
      return run_journaled(
        engine,
        self.params(),
        jobs,
        key,
        journal,
        phase or name,
        progress,
        self.runtime.should_stop,
        plan,
        self.runtime.team,
      )
    except Interrupted:
      if self.runtime.team.count > 1:
        raise StoppedAlone from None
      self.stop_if_asked()
      raise

  def evaluate(self, when: str) -> None:
    """pass@1 of the present policy on the held-out problems, once per `when`, and a checkpoint."""
    if when in self.host.evaluations:
      return
    start = time.monotonic()
    jobs = rollout_jobs(self.eval_prompts, self.config.evaluate.num_samples)
    phase = f'evaluate ({when} training)' if when in ('before', 'after') else None
    rollouts, _ = self.grow(
      self.runtime.evaluation_engine, jobs, Purpose.EVALUATE, f'evaluate_{when}', phase
    )
    found = evaluation_metrics(rollouts)
    self.host.evaluations[when] = found
    self.metrics.write(
      self.host.step, 'evaluate', {'when': when, **found, 'time/evaluate': time.monotonic() - start}
    )
    self.settle()
    self.save(score=found['evaluate/pass_at_1'])

  def evaluate_if_due(self) -> None:
    """Evaluates before a step, so that a run stopped in the middle of it evaluates again."""
    step, every = self.host.step, self.config.evaluate.every_steps
    if every and step and step % every == 0:
      self.evaluate(f'step_{step:06d}')

  def filter_hard(self) -> bool:
    """Sets the round's hard set; False if there is none."""
    if self.host.hard_ids is not None:
      return bool(self.host.hard_ids)
    start, curriculum = time.monotonic(), self.config.curriculum
    nested = curriculum.filter_from == 'hard' and self.host.round_index > 0
    before = self.host.hard_before if nested else sorted(self.train_prompts)
    if not curriculum.filter_samples:
      self.set_hard(before)
      return bool(before)
    jobs = rollout_jobs([self.train_prompts[name] for name in before], curriculum.filter_samples)
    rollouts, _ = self.grow(
      self.runtime.direct_engine,
      jobs,
      Purpose.FILTER,
      f'filter_{self.host.round_index}',
      f'filter, round {self.host.round_index}',
    )
    rates = pass_rates(count_correct(rollouts))
    self.set_hard(hard_problems(rates, curriculum.hard_threshold))
    self.metrics.write(
      self.host.step,
      'filter',
      {
        'round': self.host.round_index,
        'filter/num_problems': len(before),
        'filter/num_hard': len(self.host.hard_ids),
        'filter/pass_at_1': float(np.mean(list(rates.values()))) if rates else 0.0,
        'replay/num_problems': len(self.host.replay.solutions),
        'replay/num_trajectories': len(self.host.replay),
        'time/filter': time.monotonic() - start,
      },
    )
    self.settle()
    self.save()
    return bool(self.host.hard_ids)

  def set_hard(self, names: Sequence[str]) -> None:
    """The round trains on these, and may use the solutions found so far of them."""
    self.host.hard_ids = tuple(names)
    self.host.replay = self.host.solutions().retain(names)
    self.host.found = ReplayBuffer(self.config.curriculum.max_cached_per_problem)

  def end_round(self) -> None:
    """Moves on to the next round, which filters anew."""
    self.host.hard_before = self.host.hard_ids
    self.host.round_index += 1
    self.host.batches, self.host.hard_ids = 0, None
    self.save()
    self.export_solutions()

  def export_solutions(self) -> None:
    """Writes the cached solutions for people to read; the checkpoint has them, too."""
    if not self.runtime.team.index:
      lines = self.host.solutions().to_jsonl(self.runtime.tokenizer.decode_response)
      write_atomically(self.runtime.workdir.root / 'replay.jsonl', lines)

  def train_step(self) -> None:
    """Search, verify, back up, and update on one batch of problems; or imitate solutions."""
    start = searched = time.monotonic()
    if self.worked:
      figures, after = {}, dataclasses.replace(self.host, batches=self.host.batches + 1)
      batches = self.imitation_batches()
    else:
      groups, figures, after = self.sampler.sample(self.host)
      searched = time.monotonic()
      batches, trained = self.policy_batches(groups)
      figures |= trained
    updates, skipped_in_row = self.apply(batches)
    updated = time.monotonic()
    # The state of the step as a whole: it was that of the step before until here.
    self.host = dataclasses.replace(after, step=after.step + 1, skipped_in_row=skipped_in_row)
    self.is_mid_step = False
    figures |= updates | {
      'round': self.host.round_index,
      'time/search': searched - start,
      'time/update': updated - searched,
      'time/step': updated - start,
    }
    self.metrics.write(self.host.step, 'train', figures)
    self.settle()
    if self.host.step % self.config.log.every_steps == 0:
      shown = {
        'solved': 'search/solve_rate',
        'reward': 'search/reward',
        'loss': 'train/loss',
        'tokens/s': 'time/tokens_per_second',
      }
      done = self.host.step - sum(self.config.curriculum.round_steps[: self.host.round_index])
      self.runtime.progress.update(
        done,
        **{
          label: round(figures[name], 0 if label == 'tokens/s' else 4)
          for label, name in shown.items()
          if name in figures
        },
      )

  def score(self, solutions: Sequence[tuple[str, Solution]]) -> list[Trajectory]:
    """Cached (problem, solution) pairs as trajectories, with log-probs of the present policy."""
    return score_solutions(
      self.learner, self.state.params, solutions, row_length=self.rows.row_length
    )

  def policy_batches(
    self, groups: Sequence[Sequence[Trajectory]]
  ) -> tuple[list[Batch], dict[str, float]]:
    """Minibatches of whole problems, and their metrics.

    All are scored here, before the first update: by the policy that the step began with.
    """
    config = self.config.train
    packed, num_trained = pack_minibatches(
      groups, config, response_limit(self.config), row_length=self.rows.row_length
    )
    batches = [
      rescore(self.learner, self.state.params, batch, reference=self.reference, config=config)
      for batch in packed
    ]
    num_tokens = sum(float(batch.num_copies.sum()) for batch in packed)
    return batches, importance_metrics(packed, batches, config) | {
      'train/trajectories': num_trained,
      'train/response_tokens': num_tokens / max(num_trained, 1),
    }

  def imitation_batches(self) -> list[Batch]:
    """Minibatches of worked solutions of the next problems."""
    size = self.config.train.minibatch_problems
    pairs = [
      self.worked[name]
      for names in next_batch(self.config, self.train_prompts, self.host)
      for name in names
    ]
    return [
      pack(plain_examples(pairs[first : first + size]), self.rows.row_length)[0]
      for first in range(0, len(pairs), size)
    ]

  def apply(self, batches: Sequence[Batch]) -> tuple[dict[str, float], int]:
    """One optimizer update per batch; means over them, and gradients skipped in a row by now."""
    rows, skipped_in_row = [], self.host.skipped_in_row
    for batch in batches:
      self.state, figures = self.learner.update(self.state, batch)
      self.is_mid_step = True
      rows.append(figures)
      if len(batch.tokens):
        skipped_in_row = (skipped_in_row + 1) * int(figures['train/skipped'])
    means = {name: float(np.mean([r[name] for r in rows])) for name in rows[0]}
    return means | {
      'train/ratio_first': float(np.exp(rows[0]['train/ratio_max_log']))
    }, skipped_in_row
