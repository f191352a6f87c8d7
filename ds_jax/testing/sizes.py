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
}
