"""`ds-jax warmstart`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ds_jax.cli.registry import Flags, Needs
from ds_jax.cli.result import Result

if TYPE_CHECKING:
  from ds_jax.run.session import Session

HELP = 'Train a tiny decoder on worked solutions of the embedded task; writes WORKDIR/warmstart.'
EXAMPLE = 'ds-jax warmstart --config=configs/quickstart.py --workdir=runs/quickstart'
NEEDS = Needs(config=True, workdir=True, lock=True)


@dataclasses.dataclass(frozen=True)
class Args(Flags):
  pass


def run(session: Session, args: Args) -> Result:
  from ds_jax.run.warmstart import warmstart

  del args
  return Result(warmstart(session))
