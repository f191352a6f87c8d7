"""`ds-jax evaluate`."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Annotated

from ds_jax.cli.registry import NAMES_RUN, Needs, ShortFor
from ds_jax.cli.result import Result
from ds_jax.cli.run_flags import RunFlags
from ds_jax.config.places import FOLDER

if TYPE_CHECKING:
  from ds_jax.run.session import Session

HELP = 'pass@1 of a run, of the newest parameters or others, on its evaluation split or benchmarks.'
EXAMPLE = (
  'ds-jax evaluate --checkpoint=runs/deepsearch --benchmarks=aime2024,aime2025 '
  '--samples=32 --temperature=0.6 --top_p=0.95 --data_dir=data'
)
NEEDS = Needs(config=True, workdir=True, team=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Args(RunFlags):
  # instead of --config and --workdir: the folder of a run, whose config holds
  checkpoint: Annotated[str, NAMES_RUN, FOLDER] = ''
  benchmarks: str = ''  # names, e.g. aime2024,math500 (`ds-jax data prepare`), or all
  # per problem: config.evaluate.num_samples
  samples: Annotated[str, ShortFor('evaluate.num_samples')] = ''
  temperature: Annotated[str, ShortFor('evaluate.temperature')] = ''  # config.evaluate.temperature
  top_p: Annotated[str, ShortFor('evaluate.top_p')] = ''  # config.evaluate.top_p
  # folder of prepared benchmarks: config.data.data_dir
  data_dir: Annotated[str, ShortFor('data.data_dir')] = ''
  # folder of samples and tables (default: one in the workdir)
  output: Annotated[str | None, FOLDER] = None


def run(session: Session, args: Args) -> Result:
  from ds_jax.data.benchmarks import BENCHMARKS
  from ds_jax.run.disk import is_writable
  from ds_jax.run.evaluation import evaluate
  from ds_jax.run.workdir import lock

  benchmarks = tuple(args.benchmarks.split(',')) if args.benchmarks else ()
  if args.benchmarks == 'all':
    benchmarks = tuple(BENCHMARKS)
  held = contextlib.nullcontext()  # the files of benchmarks have locks of their own
  if session.team.is_first and not benchmarks and is_writable(session.workdir.root):
    held = lock(session.workdir, session.progress.note)
  with held:
    chosen = args.chosen_in(session)
    return Result(*evaluate(chosen, benchmarks=benchmarks, output=args.output))
