"""The run: filter the hard set, search, learn, re-filter; resumable at any moment.

The state is the newest committed checkpoint plus the journals of finished trees. Everything that
influences the next step is in it, and each step is a function of it, so that a run that was
stopped ends as one that was not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Sequence
from typing import Any

from jax.profiler import TraceAnnotation

from ds_jax.checks import InputError, NotFinite
from ds_jax.config import best_metric, check_training, temperature_name
from ds_jax.run.continuing import continuation
from ds_jax.run.engines import Engines, open_engines
from ds_jax.run.growing import Grown, Work, grow_journaled
from ds_jax.run.learning import Learning
from ds_jax.run.measuring import (
  evaluation_figures,
  evaluation_work,
  filter_figures,
  filter_work,
  keep_samples,
  of_temperature,
  tell_figures,
)
from ds_jax.run.profiling import Profile
from ds_jax.run.prompts import (
  check_golds,
  check_room,
  evaluation_prompts,
  load_prompts,
  note_missing_box,
  note_shared,
)
from ds_jax.run.reporting import check_beside, example_trees, finish
from ds_jax.run.sampler import Sampler
from ds_jax.run.saving import Saving, writer_openers
from ds_jax.run.session import Session, probed
from ds_jax.run.stopping import Stopped, StoppedAlone
from ds_jax.run.watch import Watch

# An update that has begun to change the parameters may go on this long after a request to stop.
UPDATE_GRACE = 15.0  # seconds


def train(session: Session) -> tuple[dict[str, Any], str]:
  """The main job: evaluate, filter, search and learn for some rounds, evaluate, report.

  A finished workdir says so and does nothing; an unfinished one goes on, and so does a finished one
  whose `curriculum.round_steps` have become more. The processes of the session's team share the
  workdir; the first of them writes the reports.

  Returns:
    The summary, and its table as text.

  Raises:
    InputError: for settings that do not fit, and if no gradient, or what the model computes, is
      finite any more.
    Stopped: after saving, if asked to stop.
    CannotWrite: before any work, if the workdir cannot be written; SaveError, if a checkpoint.
  """
  config, workdir, team = session.config, session.workdir, session.team
  check_training(config)
  check_beside(session)
  writer_openers(session)  # refuses what cannot be imported
  begun = continuation(session)
  if begun.is_finished:
    session.progress.note(
      f'{workdir.root} is finished; nothing to do. More steps or rounds in '
      f'curriculum.round_steps ({",".join(map(str, config.curriculum.round_steps))}) go on with it.'
    )
    return json.loads(workdir.summary.read_text()) | {'status': 'finished'}, ''
  session = probed(session)
  start = time.monotonic()
  with open_engines(session) as engines:
    engines.announce()
    begun.tell()
    with contextlib.closing(Training(engines, begun.plan_before)) as training:
      if team.is_first:
        begun.set_summary_aside(training.host.step)
        engines.claim()
      training.run()
      examples = example_trees(engines, training.learning.params(), training.eval_prompts)
  if not team.is_first:
    team.barrier()  # the first has the reports to write
    return {'status': 'done', 'process': team.index}, ''
  fields = {'rounds': training.host.round_index, 'time/train': time.monotonic() - start}
  summary = finish(session, fields, examples)
  team.barrier()
  return summary


class Training:
  """One run from its newest checkpoint to its end; `run` is the whole story."""

  def __init__(self, engines: Engines, plan_before: Sequence[int] = ()):
    """Restores the newest checkpoint, or begins with the initial model.

    Args:
      engines: of the run.
      plan_before: steps of each round by which the workdir went so far; (): those of the config.

    Raises:
      InputError: for settings that do not fit; nothing has been written by then.
    """
    session = engines.session
    self.session, self.config, self.engines = session, session.config, engines
    prompts = load_prompts(session, engines.tokenizer, 'train')
    self.eval_prompts = evaluation_prompts(session, engines.tokenizer)
    note_missing_box(session, engines.tokenizer, (*prompts, *self.eval_prompts))
    note_shared(session, prompts, self.eval_prompts)
    check_room(session.config, engines.tokenizer, prompts)
    check_golds(session, engines.pool.verify, prompts, what='train')
    check_golds(session, engines.pool.verify, self.eval_prompts, what='eval')
    self.learning = Learning(engines, prompts, before_pass=self.poll)
    self.train_prompts = {problem.id: (problem, tokens) for problem, tokens in prompts}
    if self.learning.worked:
      self.train_prompts = {name: self.train_prompts[name] for name in self.learning.worked}
    self.sampler = Sampler(engines, self.train_prompts, grow=self.grow, score=self.learning.score)
    with contextlib.ExitStack() as opened:  # closed if a later line refuses the run
      self.saving = opened.enter_context(contextlib.closing(Saving(session)))
      state, self.host = self.saving.restore(self.learning.abstract_state())
      self.follow_plan(plan_before or self.plan)
      self.learning.begin(state, self.host.base_digest)
      self.host.base_digest = self.learning.base_digest
      self.saving.metrics.cut(self.host.metrics_size)
      self.profile = opened.enter_context(contextlib.closing(Profile(session)))
      self._opened = opened.pop_all()
    self.watch = Watch(engines)
    self._asked_at: float | None = None  # when an update first saw that it should stop

  @property
  def plan(self) -> tuple[int, ...]:
    """Training steps of each round."""
    return self.config.curriculum.round_steps

  def follow_plan(self, plan_before: Sequence[int]) -> None:
    """Goes on by the config's plan of rounds, where the workdir went by another one so far.

    Trees of a search that was stopped are dropped, unless it is what comes next by this plan, too.

    Raises:
      InputError: if the plan does not begin with what was done.
    """
    is_taken_up_again = self.host.follow(self.plan, plan_before)
    if plan_before == self.plan:
      return
    host, team = self.host, self.session.team
    if team.is_first:
      self.saving.drop_journals(lambda work: not is_taken_up_again and host.is_next(work))
    team.barrier()  # the others read them, and write new ones

  def run(self) -> None:
    """Goes on to the end.

    Raises:
      Stopped: after saving, if asked to stop.
      SaveError: if a checkpoint cannot be written; the one before is good.
      InputError: after saving, if no gradient is finite any more.
    """
    if self.config.evaluate.before_training and not self.host.step:
      self.evaluate('before')
    rounds = self.plan
    while self.host.round_index < len(rounds) and not self.is_spent:
      if not self.filter_hard():
        self.session.progress.note(
          f'Round {self.host.round_index}: no problem is hard any more '
          f'(pass@1 below {self.config.curriculum.hard_threshold}); training ends here.'
        )
        break
      last = sum(rounds[: self.host.round_index + 1])
      self.session.progress.start(
        f'train, round {self.host.round_index}', rounds[self.host.round_index]
      )
      while self.host.step < last and not self.is_spent:
        self.stop_if_asked()
        self.evaluate_if_due()
        with self.profile.step(self.host.step + 1):
          self.train_step()
        self.stop_if_broken()
        if self.host.step % self.config.checkpoint.every_steps == 0 and self.host.step < last:
          self.save()
      self.session.progress.finish()
      if self.host.step == last:
        self.end_round()
    self.evaluate('after')
    self.saving.commit()
    self.saving.export_solutions(self.host, self.engines.tokenizer.decode_response)

  @property
  def is_spent(self) -> bool:
    """Whether as many tokens have been generated as the run may."""
    return 0 < self.config.curriculum.max_tokens <= self.host.generated_tokens

  def close(self) -> None:
    """Closes files; use `contextlib.closing`."""
    self._opened.close()

  def save(self, score: float | None = None) -> None:
    """Begins a checkpoint of the present state."""
    self.saving.begin_save(self.learning.state, self.host, score)

  def stop_if_asked(self) -> None:
    """Saves and raises Stopped, if the run was asked to stop: all processes at the same step."""
    if any(self.session.team.gather(b'1' if self.session.should_stop() else b'')):
      self.save()
      self.saving.commit()
      raise Stopped

  def poll(self) -> None:
    """Stops an update if the run was asked to stop: before it begins, or when it takes too long.

    Raises:
      Stopped: after saving the state before the step; its trees are journaled.
      StoppedAlone: amid the updates of a step, or in one of several processes.
    """
    if not self.session.should_stop():
      return
    if not self.learning.is_mid_step and self.session.team.count == 1:
      self.stop_if_asked()
    self._asked_at = self._asked_at or time.monotonic()
    if time.monotonic() > self._asked_at + UPDATE_GRACE:
      raise StoppedAlone

  def stop_if_broken(self) -> None:
    """Saves and raises InputError after too many gradients in a row that are not finite."""
    count = self.host.skipped_in_row
    if count >= self.config.train.max_skipped:
      self.save()
      self.saving.commit()
      raise InputError(
        f'The last {count} gradients were not finite (train.max_skipped = '
        f'{self.config.train.max_skipped}). None was applied, and step {self.host.step} is '
        'saved. See what grew before (train/grad_norm, train/ratio_max_log in metrics.jsonl), '
        'and start again with a lower train.learning_rate or train.max_grad_norm.'
      )

  def grow(self, work: Work, name: str) -> Grown:
    """Grows trees; what is finished is journaled under `name`. Saves and stops when asked to."""
    journal = self.saving.open_journal(name)
    try:
      grown = grow_journaled(self.session, self.learning.params(), work, journal=journal)
    except StoppedAlone:
      raise
    except Stopped:
      self.stop_if_asked()
      raise
    except NotFinite as error:
      raise NotFinite(
        f'{error} Found after step {self.host.step}; the newest checkpoint in '
        f'{self.session.workdir.checkpoints} is whole, and finished trees are kept. If training '
        'has made it so, start again with a lower train.learning_rate (train/grad_norm and '
        'train/ratio_max_log in metrics.jsonl tell what grew).'
      ) from error
    self.watch.add(grown.trees)
    return grown

  def evaluate(self, when: str) -> None:
    """pass@1 of the present policy on the held-out problems, once per `when`, and a checkpoint."""
    if when in self.host.evaluations:
      return
    start = time.monotonic()
    figures = self.evaluated(when)
    for temperature in self.config.evaluate.further_temperatures:
      figures |= self.evaluated(when, temperature)
    self.host.evaluations[when] = figures
    seconds = time.monotonic() - start
    spent = {'search/tokens_so_far': self.host.generated_tokens}
    row = {'when': when, **spent, **figures, 'time/evaluate': seconds}
    self.saving.metrics.write(self.host.step, 'evaluate', row)
    self.saving.settle()
    self.save(score=figures.get(best_metric(self.config)))
    tell_figures(self.session.progress, self.host.step, figures)

  def evaluated(self, when: str, temperature: float | None = None) -> dict[str, float]:
    """Metrics of the held-out problems, of a further temperature under names of their own."""
    work = evaluation_work(
      self.engines, self.eval_prompts, self.host, when=when, temperature=temperature
    )
    part = '' if temperature is None else temperature_name(temperature)
    rollouts = self.grow(work, f'evaluate_{when}' + (f'.{part}' if part else '')).trees
    step = self.host.step
    keep_samples(self.engines, rollouts, self.eval_prompts, step=step, when=when, part=part)
    if temperature is None:
      self.watch.see_rollouts(f'Evaluation ({when})', rollouts)
    figures = evaluation_figures(self.engines, rollouts, self.eval_prompts)
    return figures if temperature is None else of_temperature(figures, temperature)

  def evaluate_if_due(self) -> None:
    """Evaluates before a step, so that a run stopped in the middle of it evaluates again."""
    step, every = self.host.step, self.config.evaluate.every_steps
    if every and step and step % every == 0:
      self.evaluate(f'step_{step:06d}')

  def filter_hard(self) -> bool:
    """Sets the round's hard set; False if there is none."""
    host, curriculum = self.host, self.config.curriculum
    if host.hard_ids is not None:
      return bool(host.hard_ids)
    start = time.monotonic()
    candidates = sorted(self.train_prompts)
    if curriculum.filter_from == 'hard' and host.round_index > 0:
      candidates = host.hard_before
    if not curriculum.filter_samples:
      host.begin_round(candidates)
      return bool(candidates)
    prompts = [self.train_prompts[name] for name in candidates]
    work = filter_work(self.engines, prompts, host)
    rollouts = self.grow(work, f'filter_{host.round_index}').trees
    self.watch.see_rollouts(f'Filter, round {host.round_index}', rollouts)
    hard_ids, measured = filter_figures(self.engines, rollouts, prompts)
    host.begin_round(hard_ids)
    host.generated_tokens += sum(tree.statistics['generated_tokens'] for tree in rollouts)
    host.solved |= {tree.problem_id for tree in rollouts if tree.is_solved}
    figures = measured | {
      'round': host.round_index,
      'filter/num_problems': len(candidates),
      'filter/num_hard': len(host.hard_ids),
      'replay/num_problems': len(host.replay.solutions),
      'replay/num_trajectories': len(host.replay),
      'time/filter': time.monotonic() - start,
    }
    self.saving.metrics.write(host.step, 'filter', figures)
    self.saving.settle()
    self.save()
    return bool(host.hard_ids)

  def end_round(self) -> None:
    """Moves on to the next round, which filters anew."""
    self.host.end_round()
    self.save()
    self.saving.export_solutions(self.host, self.engines.tokenizer.decode_response)

  def train_step(self) -> None:
    """Search, verify, back up, and update on one batch of problems; or imitate solutions."""
    start = searched = time.monotonic()
    processor_start = time.process_time()
    self.watch.begin_step()
    if self.learning.worked:
      batches = self.learning.imitation_batches(self.sampler.next_problems(self.host))
      groups, figures, after = [], {}, dataclasses.replace(self.host, batches=self.host.batches + 1)
    else:
      with TraceAnnotation('search'):
        groups, figures, after = self.sampler.sample(self.host)
      searched = time.monotonic()
      with TraceAnnotation('score'):
        batches, trained = self.learning.policy_batches(groups, self.host.memory, self.host.step)
      figures |= trained
    self.session.progress.tell(now='update')
    with TraceAnnotation('update'):
      updates, skipped_in_row = self.learning.update(batches, self.host.skipped_in_row)
      further, skipped_in_row = self.learning.further_updates(
        self.host.memory, self.host.step, skipped_in_row
      )
    updated = time.monotonic()
    # The state of the step as a whole: it was that of the step before until here.
    self.host = dataclasses.replace(after, step=after.step + 1, skipped_in_row=skipped_in_row)
    self.learning.is_mid_step = False
    figures |= (
      updates
      | further
      | {
        'round': self.host.round_index,
        'time/search': searched - start,
        'time/update': updated - searched,
        'time/step': updated - start,
        'time/processor': time.process_time() - processor_start,
      }
    )
    self.saving.metrics.write(self.host.step, 'train', figures)
    self.saving.settle()
    is_skipped = figures['train/skipped'] == 1
    self.watch.see_step(self.host.step, groups, batches, is_skipped=is_skipped)
    if self.host.step % self.config.log.every_steps == 0:
      self.show(figures)

  def show(self, figures: dict[str, float]) -> None:
    """Tells a person how the step went."""
    labels = {
      'search/solve_rate': 'solved',
      'search/reward': 'reward',
      'train/loss': 'loss',
      'time/tokens_per_second': 'tokens/s',
    }
    shown = {}
    for name, label in labels.items():
      if name in figures:
        shown[label] = round(figures[name], 0 if label == 'tokens/s' else 4)
    before = sum(self.config.curriculum.round_steps[: self.host.round_index])
    self.session.progress.update(self.host.step - before, **shown)
