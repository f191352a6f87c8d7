"""`ds-jax grade`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

from ds_jax.cli.registry import POSITIONAL, Flags, Needs
from ds_jax.cli.result import Result
from ds_jax.config import VerifyConfig
from ds_jax.config.annotations import Positive

if TYPE_CHECKING:
  from ds_jax.run.session import Session

HELP = 'Verdicts on a file of golds and predictions; accuracy where it says what is right.'
EXAMPLE = 'ds-jax grade answers.jsonl --mode=math'
NEEDS = Needs()


@dataclasses.dataclass(frozen=True)
class Args(Flags):
  # rows with gold, prediction and, if known, equivalent; --file= may be left out
  file: Annotated[str, POSITIONAL]
  # math (default), released (the released grader, defects included), or a verifier
  mode: str = 'math'
  # .jsonl of verdicts, which the same command continues (default: beside FILE)
  output: str | None = None
  workers: Positive = VerifyConfig().num_workers  # processes


def run(session: Session, args: Args) -> Result:
  from ds_jax.cli.grading import grade

  summary, text = grade(
    session, args.file, mode=args.mode, output=args.output, num_workers=args.workers
  )
  return Result(summary, text)
