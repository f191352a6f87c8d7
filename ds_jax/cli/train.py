"""`ds-jax train`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ds_jax.cli.registry import Flags, Needs
from ds_jax.cli.result import Result

if TYPE_CHECKING:
  from ds_jax.run.session import Session

HELP = 'The main job: evaluate, filter, search, learn, evaluate, report. Continues where it was.'
EXAMPLE = 'ds-jax train --config=configs/quickstart.py --workdir=runs/quickstart'
NEEDS = Needs(config=True, workdir=True, team=True, lock=True)


@dataclasses.dataclass(frozen=True)
class Args(Flags):
  pass


def run(session: Session, args: Args) -> Result:
  from ds_jax.run.training import train

  del args
  return Result(*train(session))
