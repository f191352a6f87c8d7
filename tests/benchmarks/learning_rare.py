"""Problems of chain that a policy hardly ever solves, by the exact probability of its right path.

  python tests/benchmarks/learning_rare.py --config=configs/chain.py \\
    --model=runs/chain/warmstart --output=rare.jsonl [--below=0.003] [--problems=set.jsonl]

A problem of chain has one right path, so the probability that a rollout solves it is the product of
its tokens' at temperature 1: nothing is sampled. Writes the training problems whose probability is
below the bound, and prints how it is distributed, over all of them or over those of `--problems`.
"""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
import optax

from ds_jax.config import load_config
from ds_jax.data.chain import generate_problems
from ds_jax.data.prompts import load_tokenizer
from ds_jax.model.huggingface.load import load_decoder
from ds_jax.sharding import make_mesh
from ds_jax.train.batch import pack, plain_examples, scatter
from ds_jax.train.sft import imitation_loss
from ds_jax.train.step import make_learner
from ds_jax.types import Problem

_ROWS = 256  # of a forward pass
_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--config', required=True)
  parser.add_argument('--model', required=True, help='a Hugging Face folder')
  parser.add_argument('--output', type=pathlib.Path, required=True)
  parser.add_argument('--below', type=float, default=0.003)
  parser.add_argument('--problems', type=pathlib.Path, help='a file whose problems are described')
  flags = parser.parse_args()
  config = load_config(flags.config)
  problems = list(generate_problems(config.data.chain, 'train'))
  chances = solution_chances(problems, flags.model, row_length=config.train.row_length)
  lines = []
  for problem, chance in zip(problems, chances, strict=True):
    if chance < flags.below:
      lines.append(
        json.dumps({'id': problem.id, 'problem': problem.prompt, 'answer': problem.answer})
      )
  flags.output.write_text(''.join(f'{line}\n' for line in lines))
  described = chances
  if flags.problems:
    names = {json.loads(line)['id'] for line in flags.problems.read_text().splitlines()}
    described = chances[[problem.id in names for problem in problems]]
  print(json.dumps(describe(described, flags.below, config.search.num_trajectories)))


def solution_chances(problems: Sequence[Problem], model: str, row_length: int) -> np.ndarray:
  """The probability of each problem's worked solution under a model at temperature 1, `[n]`."""
  tokenizer = load_tokenizer(model)
  responses = [tokenizer.encode_response(problem.solution) for problem in problems]
  pairs = list(zip(tokenizer.encode_problems(problems), responses, strict=True))
  mesh = make_mesh(devices=jax.devices()[:1])
  params = load_decoder(model, num_ids=tokenizer.num_ids, mesh=mesh)
  learner = make_learner(optax.identity(), mesh, micro_rows=_ROWS, loss_fn=imitation_loss)
  batch, origin = pack(plain_examples(pairs), row_length)
  logprobs, _ = learner.score(params, batch)
  lengths = [len(response) for response in responses]
  return np.exp([row.sum() for row in scatter(logprobs, origin, lengths)])


def describe(chances: np.ndarray, below: float, group_size: int) -> dict[str, object]:
  """Figures of probabilities, and how many groups of rollouts have right and wrong ends."""
  rare = chances < below
  contrast = 1 - chances**group_size - (1 - chances) ** group_size
  return {
    'problems': len(chances),
    'rare': int(rare.sum()),
    'mean': round(float(chances.mean()), 5),
    'quantiles': {q: round(float(np.quantile(chances, q)), 5) for q in _QUANTILES},
    'groups_with_contrast': round(float(contrast.mean()), 5),
    'groups_with_contrast_of_rare': round(float(contrast[rare].mean()), 5),
    'share_of_contrast_not_rare': round(float(contrast[~rare].sum() / contrast.sum()), 3),
  }


if __name__ == '__main__':
  main()
