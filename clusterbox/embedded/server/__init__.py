"""The process behind the embedded account: ministack with what an HPC site needs added.

Nothing is imported here: ministack reads its settings from the environment when it is first
imported, and ``__main__`` has to set them before.
"""
