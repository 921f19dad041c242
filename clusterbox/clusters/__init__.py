"""Clusters as files: compose their configurations, and judge them with ParallelCluster's library."""
