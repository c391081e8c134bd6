"""Many steps or many runs together."""
