"""`python -m ds_jax` is `ds-jax`."""

from __future__ import annotations

import sys

from ds_jax.cli import main

if __name__ == '__main__':
  sys.exit(main())
