"""What a person sees of a run: progress, metrics, the report, and trees as text."""
