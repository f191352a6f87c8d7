"""`ds-jax evaluate`."""

from __future__ import annotations

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
  from ds_jax.run.benchmarks import benchmarks_named
  from ds_jax.run.evaluation import evaluate

  chosen = args.chosen_in(session)
  benchmarks = benchmarks_named(args.benchmarks)
  return Result(*evaluate(chosen, benchmarks=benchmarks, output=args.output))
