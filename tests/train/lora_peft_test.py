"""Adapters as peft has them: its logits, and the gradients that torch computes with it."""

from __future__ import annotations

import hf_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from ds_jax.model.decoder import Rows, compute_logits, forward
from ds_jax.model.huggingface.load import load_decoder
from ds_jax.model.huggingface.peft import save_adapters
from ds_jax.model.lora import Lora, init_adapters
from ds_jax.testing.tolerance import assert_close, decoder_terms

CASES = {case.name: case for case in hf_models.CASES}
TARGETS = {
  'qwen2-untied': 'layers/.*_kernel',
  'qwen3-tied-wide-heads': '(query|value|output)_kernel',
  'llama-llama3-explicit-heads-five-layers': '(key|gate|up|down)_kernel',
}


@pytest.mark.parametrize('name', TARGETS)
def test_logits_and_gradients_are_those_of_peft(name, tmp_path):
  torch = pytest.importorskip('torch', reason='peft on torch is the reference')
  peft = pytest.importorskip('peft', reason='`pip install peft`: it is the reference')
  hf_models.save(CASES[name], tmp_path / 'model')
  decoder = load_decoder(tmp_path / 'model')
  lora = Lora(rank=4, alpha=6.0, targets=TARGETS[name])
  adapters = init_adapters(decoder, lora, jax.random.key(3))
  keys = iter(jax.random.split(jax.random.key(4), 64))
  adapters = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(keys), x.shape), adapters)
  save_adapters(adapters, tmp_path / 'adapters', model=str(tmp_path / 'model'))

  rng = np.random.default_rng(0)
  tokens = rng.integers(1, hf_models.VOCAB_SIZE, (1, 24)).astype(np.int32)
  weights = rng.normal(size=(1, 24, hf_models.VOCAB_SIZE)).astype(np.float32) / 24

  def loss(adapters):
    """Any sum of the logits."""
    rows = Rows(tokens, np.arange(24)[None], np.full((1, 24), 24))
    logits = compute_logits(decoder, forward(decoder, rows, adapters=adapters))
    return jnp.sum(logits[..., : hf_models.VOCAB_SIZE] * weights), logits

  gradients, logits = jax.jit(jax.grad(loss, has_aux=True))(adapters)
  save_adapters(gradients, tmp_path / 'gradients', model='')

  import transformers

  model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / 'model').eval()
  with torch.no_grad():
    before = model(torch.tensor(tokens, dtype=torch.long)).logits.numpy()
  model = peft.PeftModel.from_pretrained(model, tmp_path / 'adapters', is_trainable=True).eval()
  theirs = model(torch.tensor(tokens, dtype=torch.long)).logits
  (theirs * torch.tensor(weights)).sum().backward()
  num_terms = decoder_terms(decoder.config, 24)
  ours = np.asarray(logits[..., : hf_models.VOCAB_SIZE])
  assert_close(ours, theirs.detach().numpy(), num_terms=num_terms)
  assert np.abs(before - ours).max() > 0.01 * np.abs(ours).max()

  expected = {}
  for parameter, value in model.named_parameters():
    if value.requires_grad:
      expected[parameter.replace('.default.weight', '.weight')] = value.grad.numpy()
  found = load_file(tmp_path / 'gradients' / 'adapter_model.safetensors')
  assert found.keys() == expected.keys() and all(np.any(x) for x in expected.values())
  assert_close(found, expected, num_terms=3 * num_terms)
