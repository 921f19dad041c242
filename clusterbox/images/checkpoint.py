"""What a run has written to the repository's files, kept with its record.

A run may go on in another checkout, such as a second job of CI, whose files lack what the first one
wrote: the promoted images, the pins that moved, a cluster that was put beside another.
"""

from __future__ import annotations

from pathlib import Path

from clusterbox.files import write_whole
from clusterbox.images.record import Store
from clusterbox.site.images import LOCK, ImageLock, render_lock
from clusterbox.site.load import Repository, parse_lock

_LOCK_NAME = "images.lock.yaml"
_ENVIRONMENT_NAME = "environment.yaml"


def save_files(store: Store, run: str, root: Path, environment: str) -> None:
    """Keep the lock and the environment's file as they are now."""
    store.put(f"{run}/{_LOCK_NAME}", (root / LOCK).read_text(encoding="utf-8"))
    text = (root / "environments" / f"{environment}.yaml").read_text(encoding="utf-8")
    store.put(f"{run}/{_ENVIRONMENT_NAME}", text)


def restore_files(store: Store, run: str, root: Path, environment: str) -> list[str]:
    """Bring the checkout to where the run was, and return the files that were changed.

    Only what concerns the environment is taken: other environments' images may have been promoted
    since. A run that has kept nothing changes nothing.
    """
    changed = []
    path = root / "environments" / f"{environment}.yaml"
    kept = store.get(f"{run}/{_ENVIRONMENT_NAME}")
    if kept is not None and kept != path.read_text(encoding="utf-8"):
        write_whole(path, kept)
        changed.append(f"environments/{environment}.yaml")
    text = store.get(f"{run}/{_LOCK_NAME}")
    if text is None:
        return changed
    now = Repository(root).load_lock()
    then = parse_lock(text)
    wanted = _with_environment(now, then, environment)
    if wanted != now:
        write_whole(root / LOCK, render_lock(wanted))
        changed.append(str(LOCK))
    return changed


def _with_environment(now: ImageLock, then: ImageLock, environment: str) -> ImageLock:
    """Return the lock of now with the images and pins that an environment had then."""
    environments = {**now.environments}
    if environment in then.environments:
        environments[environment] = then.environments[environment]
    pins = {name: found for name, found in now.pins.items() if name != environment}
    if environment in then.pins:
        pins[environment] = then.pins[environment]
    return now.model_copy(update={"environments": environments, "pins": pins})
