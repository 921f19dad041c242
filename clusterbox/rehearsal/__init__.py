"""A whole site on one machine: the embedded account with a real Slurm joined to each cluster."""
