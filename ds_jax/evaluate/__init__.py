"""Direct rollouts for filtering and evaluation, and the metrics of what they solve."""
