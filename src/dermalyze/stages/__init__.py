"""The steps of a run. Each reads the run folder and writes to it; none calls another."""
