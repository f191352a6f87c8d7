"""The quickstart of README and launch/quickstart.sh: configs/countdown.py under its older name.

ds-jax warmstart --config=configs/quickstart.py --workdir=runs/quickstart
ds-jax train     --config=configs/quickstart.py --workdir=runs/quickstart
"""

from countdown import get_config

__all__ = ['get_config']
