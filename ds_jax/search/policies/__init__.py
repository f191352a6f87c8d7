"""Which node gets children next."""
