"""`ds-jax plan`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from ds_jax.cli.registry import Flags, Needs
from ds_jax.cli.result import Result

if TYPE_CHECKING:
  from ds_jax.run.session import Session

HELP = (
  'Tell whether a run fits a slice and how fast it can be: compiles for it, no TPU or GPU needed.'
)
EXAMPLE = 'ds-jax plan --config=configs/deepsearch_1_5b.py --topology=v5p:2x2x1'
NEEDS = Needs(config=True)


@dataclasses.dataclass(frozen=True)
class Args(Flags):
  # TPU slice, e.g. v5e:4x4 or v5litepod-16 (needs libtpu), or GPUs, e.g. h200:8 (needs jax's CUDA
  # plugin); several flags: several slices; default: what is here
  topology: tuple[str, ...] = ()
  meshes: Literal['config', 'all'] = 'config'  # that of the config, or every sensible one


def run(session: Session, args: Args) -> Result:
  from ds_jax.plan.command import plan

  summary, text = plan(session.config, args.topology, args.meshes, session.progress)
  return Result(summary, text, summary['exit_code'])
