"""The command line: parsing of arguments and rendering of results, and nothing else."""
