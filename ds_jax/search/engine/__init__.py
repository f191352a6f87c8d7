"""Many trees at once: rounds of expansion, verification and backup."""
