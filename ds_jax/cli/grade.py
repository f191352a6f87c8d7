"""`ds-jax grade`."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated

from ds_jax.checks import InputError
from ds_jax.cli.registry import POSITIONAL, Flags, Needs
from ds_jax.cli.result import Result
from ds_jax.config import VerifyConfig
from ds_jax.config.annotations import Positive
from ds_jax.config.places import FILE

if TYPE_CHECKING:
  from ds_jax.run.session import Session

HELP = 'Verdicts on a file of golds and predictions with accuracy, or how one pair is decided.'
EXAMPLE = 'ds-jax grade answers.jsonl --mode=math'
NEEDS = Needs()


@dataclasses.dataclass(frozen=True)
class Args(Flags):
  # rows with gold, prediction and, if known, equivalent; --file= may be left out
  file: Annotated[str, POSITIONAL, FILE] = ''
  # math_bare (default: predictions may be bare answers), math (the verifier that rewards: only a
  # box is an answer), released (the released grader, defects included; predictions may be bare), or
  # the name of any verifier
  mode: str = 'math_bare'
  # where the gold stands in a row, e.g. reward_model.ground_truth (default: the first there is of
  # gold, ground_truth, expected_answer, answer, target)
  gold_field: str = ''
  # where the prediction stands (default: the first there is of prediction, pred, response,
  # completion, output, generation)
  prediction_field: str = ''
  equivalent_field: str = ''  # where it says what is right (default: equivalent)
  # .jsonl of verdicts with what was read of both sides and the stage that decided, which the same
  # command continues (default: beside FILE)
  output: Annotated[str | None, FILE] = None
  workers: Positive = VerifyConfig().num_workers  # processes
  # instead of FILE: print how one pair of --gold and --prediction is decided, stage by stage
  explain: bool = False
  gold: str | None = None  # with --explain
  prediction: str | None = None  # with --explain

  @classmethod
  def required(cls, given: Collection[str]) -> set[str]:
    return {'gold', 'prediction'} if 'explain' in given else {'file'}

  def __post_init__(self) -> None:
    if self.explain and (self.file or self.output):
      raise InputError('--explain is about one pair; leave out --file and --output.')
    if not self.explain and (self.gold or self.prediction):
      raise InputError('--gold and --prediction belong to --explain; a FILE has its own.')


def run(session: Session, args: Args) -> Result:
  from ds_jax.cli.explaining import explain_pair
  from ds_jax.cli.grading import grade
  from ds_jax.cli.grading_rows import Fields

  if args.explain:
    return Result(*explain_pair(session, args.gold, args.prediction, mode=args.mode))
  fields = Fields(args.gold_field, args.prediction_field, args.equivalent_field)
  summary, text = grade(
    session,
    args.file,
    mode=args.mode,
    fields=fields,
    output=args.output,
    num_workers=args.workers,
  )
  return Result(summary, text)
