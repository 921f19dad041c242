"""A real Slurm on this machine, built from a composed cluster: `SlurmCluster.start`."""

from clusterbox.embedded.slurm.cluster import Mail, SlurmCluster
from clusterbox.embedded.slurm.daemons import EmbeddedSlurmError
from clusterbox.embedded.slurm.settings import Options

__all__ = ["EmbeddedSlurmError", "Mail", "Options", "SlurmCluster"]
