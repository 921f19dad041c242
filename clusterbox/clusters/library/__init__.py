"""What runs inside ParallelCluster's own Python environment, beside its library.

One module an operation; `__main__.py` calls its `answer` for each cluster. The modules import the
library, the standard library and each other, and nothing else of this project.
"""
