"""`ds-jax data prepare`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

from ds_jax.cli.registry import Flags, Needs
from ds_jax.cli.result import Result
from ds_jax.config import DataConfig
from ds_jax.config.places import BUCKET_OR_FOLDER, FILE

if TYPE_CHECKING:
  from ds_jax.run.session import Session

HELP = 'Build a training set or a benchmark once, from a file you have, for tfds:NAME.'
EXAMPLE = 'ds-jax data prepare --benchmark=aime2025 --from=aime2025.jsonl --data_dir=data'
NEEDS = Needs()


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowFlags(Flags):
  """Where the parts of a problem stand in a row."""

  prompt_field: str = ''  # where the question stands in a row (default: the usual names)
  answer_field: str = ''  # where the gold answer stands
  id_field: str = ''  # where the id stands

  def data_config(self, source: str = '', max_problems: int = 0) -> DataConfig:
    return DataConfig(
      source=source,
      max_problems=max_problems,
      prompt_field=self.prompt_field,
      answer_field=self.answer_field,
      id_field=self.id_field,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Args(RowFlags):
  # .jsonl, .json, .parquet, .csv, or a pattern of such files
  from_: Annotated[str, FILE]
  # folder or gs://… for prepared sets; --config.data.data_dir reads them
  data_dir: Annotated[str, BUCKET_OR_FOLDER]
  benchmark: str = ''  # aime2024, aime2025, amc2023, math500, minerva_math or olympiadbench
  name: str = 'deepmath103k'  # of a training set (default: deepmath103k)


def run(session: Session, args: Args) -> Result:
  from ds_jax.cli.data_text import format_summary
  from ds_jax.data.prepare import prepare_benchmark, prepare_training_set

  config = args.data_config()
  if args.benchmark:
    summary = prepare_benchmark(args.benchmark, args.from_, config, data_dir=args.data_dir)
  else:
    summary = prepare_training_set(
      args.name, args.from_, config, data_dir=args.data_dir, progress=session.progress
    )
  return Result(summary, format_summary(summary))
