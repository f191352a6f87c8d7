"""A workdir as `ds-jax train` leaves it, made without training: a model and two checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np

from ds_jax.data.prompts import ChatTokenizer, load_tokenizer, save_tokenizer
from ds_jax.model.decoder import Decoder, init_decoder
from ds_jax.model.huggingface.save import save_decoder
from ds_jax.run.checkpoint import Checkpointer
from ds_jax.run.parameters import new_decoder_config
from ds_jax.run.workdir import Workdir, claim
from ds_jax.sharding import make_mesh
from ds_jax.testing import tiny_run
from ds_jax.testing.tiny_run import write_countdown_tokenizer
from ds_jax.train.optimizer import make_optimizer
from ds_jax.train.state import init_state


def write_run(folder: Path, name: str = 'run') -> tuple[Workdir, Decoder, ChatTokenizer]:
  """Writes the run; returns its workdir, its newest parameters and its tokenizer."""
  config, workdir = tiny_run.config(), Workdir(folder / name)
  write_countdown_tokenizer(folder / 'tokenizer', 30)
  tokenizer = load_tokenizer(folder / 'tokenizer')
  decoder = init_decoder(new_decoder_config(config, tokenizer), jax.random.key(0))
  save_decoder(
    decoder,
    workdir.warmstart,
    stop_ids=tokenizer.stop_ids,
    pad_id=tokenizer.pad_id,
    add_files=lambda path: save_tokenizer(folder / 'tokenizer', path),
  )
  original = json.loads((workdir.warmstart / 'config.json').read_text())
  (workdir.warmstart / 'config.json').write_text(json.dumps(original | {'bos_token_id': 7}))
  (workdir.warmstart / 'generation_config.json').write_text(json.dumps({'temperature': 0.6}))
  (workdir.warmstart / 'chat_template.jinja').write_text('{{ messages[0].content }}')
  claim(workdir, config)
  mesh, optimizer = make_mesh(fsdp=8), make_optimizer(config.train)
  checkpointer = Checkpointer(workdir.checkpoints, keep=2)
  for step in (1, 2):
    state = init_state(jax.tree.map(lambda x, s=step: x + s, decoder), optimizer, mesh)
    checkpointer.save(step, state, {'step': step})
  checkpointer.close()
  return workdir, jax.tree.map(lambda x: np.asarray(x) + 2, decoder), tokenizer
