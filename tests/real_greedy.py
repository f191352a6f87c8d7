"""Greedy continuations of real models, by the decoder that a search has and by transformers."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ds_jax.config import Config
from ds_jax.data.prompts import load_tokenizer
from ds_jax.interfaces import SilentProgress
from ds_jax.model.huggingface.config import read_config
from ds_jax.model.huggingface.load import load_decoder
from ds_jax.run.engines import Engines
from ds_jax.run.growing import Work, grow_in_memory, rollout_jobs
from ds_jax.run.session import Session
from ds_jax.run.workdir import Workdir
from ds_jax.search.engine.keys import Purpose
from ds_jax.sharding import make_mesh
from ds_jax.types import Problem
from ds_jax.verify.pool import VerifierPool


def by_search(
  folder: pathlib.Path,
  config: Config,
  questions: Sequence[str],
  *,
  num_tokens: int,
  workdir: pathlib.Path,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
  """Prompt tokens of each question, and its continuation by the engine of direct rollouts."""
  config = dataclasses.replace(
    config,
    search=dataclasses.replace(config.search, max_depth=1, segment_length=num_tokens),
    evaluate=dataclasses.replace(config.evaluate, temperature=0.0, num_slots=len(questions)),
  )
  tokenizer = load_tokenizer(folder)
  problems = [Problem(f'q{i:02d}', text, '') for i, text in enumerate(questions)]
  prompts = list(zip(problems, tokenizer.encode_prompts(questions), strict=True))
  session = Session(config, Workdir(workdir), SilentProgress())
  decoder_config = dataclasses.replace(
    read_config(folder, tokenizer.num_ids), **config.model.formats
  )
  mesh = make_mesh(devices=jax.devices()[:1])
  with VerifierPool(config.verify) as pool:
    engines = Engines(session, mesh, tokenizer, decoder_config, pool)
    params = load_decoder(folder, num_ids=tokenizer.num_ids, mesh=mesh, for_search=True)
    work = Work(engines.evaluation_engine, rollout_jobs(prompts, 1), Purpose.EVALUATE)
    trees = grow_in_memory(session, params, work).trees
  return [ids for _, ids in prompts], [tree.tokens for tree in trees]


def by_transformers(
  model: Any, prompts: Sequence[np.ndarray], stop_ids: Sequence[int], *, num_tokens: int
) -> list[np.ndarray]:
  """Continuations by `generate`, each up to its end token."""
  import torch

  continuations = []
  for prompt in prompts:
    with torch.no_grad():
      out = model.generate(
        torch.tensor(np.int64(prompt))[None],
        max_new_tokens=num_tokens,
        do_sample=False,
        pad_token_id=0,
      )
    row = out[0, len(prompt) :].numpy()
    ends = np.flatnonzero(np.isin(row, stop_ids))
    continuations.append(row[: ends[0] + 1] if len(ends) else row)
  return continuations
