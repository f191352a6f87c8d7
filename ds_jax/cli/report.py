"""`ds-jax report`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

from ds_jax.cli.registry import Flags, Needs
from ds_jax.cli.result import Result
from ds_jax.config.annotations import Count
from ds_jax.config.places import FOLDER

if TYPE_CHECKING:
  from ds_jax.run.session import Session

HELP = 'Write report.html and report.png of a run.'
EXAMPLE = 'ds-jax report --workdir=runs/quickstart'
NEEDS = Needs(workdir=True)


@dataclasses.dataclass(frozen=True)
class Args(Flags):
  output: Annotated[str, FOLDER] = ''  # folder to write them to (default: the workdir)
  # right responses of each evaluation set that the page shows, and as many wrong ones
  responses: Count = 2


def run(session: Session, args: Args) -> Result:
  from ds_jax.run.reporting import report

  return Result(*report(session, args.output, num_responses=args.responses))
