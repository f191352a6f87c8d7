"""Decoders of the sizes that benchmarks report, by their number of parameters."""

from __future__ import annotations

from ds_jax.model.config import DecoderConfig

SIZES = {
  '1M': DecoderConfig(
    vocab_size=1024,
    num_ids=1024,
    num_layers=4,
    width=128,
    mlp_width=448,
    num_heads=4,
    num_kv_heads=2,
    head_width=32,
    max_positions=8192,
  ),
  '17M': DecoderConfig(
    vocab_size=8192,
    num_ids=8192,
    num_layers=8,
    width=384,
    mlp_width=1152,
    num_heads=6,
    num_kv_heads=2,
    head_width=64,
    max_positions=8192,
  ),
  # The shape of SmolLM2-135M.
  'smollm2': DecoderConfig(
    vocab_size=49152,
    num_ids=49152,
    num_layers=30,
    width=576,
    mlp_width=1536,
    num_heads=9,
    num_kv_heads=3,
    head_width=64,
    family='llama',
    max_positions=8192,
    rope_theta=100_000.0,
    norm_epsilon=1e-5,
  ),
}
