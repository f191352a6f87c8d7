"""Programs to begin with, a file each: `python -m ds_jax.examples.own_model MODEL`."""
