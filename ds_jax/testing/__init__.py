"""Small real parts for tests of ds_jax and of what is built on it."""
