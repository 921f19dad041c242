"""Retire images that nothing uses: their AMIs, and the snapshots that cost money."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clusterbox.aws import Account, Gap, tags_of
from clusterbox.costs.price import Unknown
from clusterbox.costs.prices import load_prices
from clusterbox.images.context import Context, Result, StepFailedError
from clusterbox.images.head_snapshots import find_old_snapshots
from clusterbox.images.image_uses import read_uses
from clusterbox.images.plan import Step
from clusterbox.images.promotion import TAG_VERIFIED
from clusterbox.pcluster import Pcluster, PclusterError
from clusterbox.site import names
from clusterbox.site.images import ImageLock
from clusterbox.site.load import Repository

if TYPE_CHECKING:
    from clusterbox.deployment.targets import Target
    from clusterbox.site.environment import Environment

# Set on the snapshots of an AMI before it goes: they are found again after a kill in between.
TAG_RETIRED = "clusterbox:retired"
TAG_IMAGE_ID = "parallelcluster:image_id"
_ABSENT = {"InvalidAMIID.NotFound", "InvalidAMIID.Unavailable", "InvalidSnapshot.NotFound"}


@dataclass(frozen=True, kw_only=True)
class Retirable:
    """One image of the site; it stays where `kept` says why.

    `gib` is the size of the disks that its snapshots are of. What is billed is what of them was
    written, so that `usd_month` is the most that can be saved; it is None where the price is not
    known.
    """

    image: str
    ami: str
    name: str
    # As EC2 tells it, such as 2026-11-22T10:00:00.000Z.
    created: str
    gib: int
    usd_month: Decimal | None
    kept: str | None = None
    snapshots: tuple[str, ...] = ()
    # ParallelCluster's name of it, where `pcluster build-image` made it.
    image_id: str | None = None
    verified: bool = False


@dataclass(frozen=True)
class _Findings:
    """The images, the newest first; with a gap none of them may go.

    `leftovers` are snapshots of images that were retired before, which an interruption left.
    """

    images: list[Retirable]
    gaps: list[Gap]
    leftovers: list[str]
    # Of head nodes, from before they were patched.
    old_snapshots: list[str]

    @property
    def unused(self) -> list[Retirable]:
        """The images that nothing keeps."""
        return [image for image in self.images if image.kept is None]


@dataclass(frozen=True)
class _End:
    """How the deletion of an image ended: it failed, it came into use meanwhile, or it is gone."""

    image: Retirable
    failed: str | None = None
    kept: str | None = None


def find_retirable(
    root: Path, target: Target, environment: Environment, keep: int
) -> list[Retirable]:
    """Return the environment's own images, the newest first, with why they are kept, if anything.

    Kept are what any lock of the repository, a file of it, a launch template, a group or an
    instance uses, what is shared or newer than the locked one, and of each image the `keep` last
    that passed their verification. Only images with the tags of this site are looked at. Where the
    account did not tell everything, all are kept, and say so.
    """
    return _look(root, target, environment, keep).images


def delete_retirable(
    root: Path,
    target: Target,
    environment: Environment,
    doomed: Sequence[Retirable],
    keep: int,
    *,
    pcluster_delete: Callable[[str], None] | None = None,
) -> list[str]:
    """Delete images and their snapshots, each after another look at what uses it.

    Returns what failed, one text for each of these images; one that went meanwhile is none of them.
    """
    ends = _delete_all(root, target, environment, doomed, keep, pcluster_delete)
    reasons = [
        end.failed or (end.kept and f"{end.image.ami} is kept, other than before: {end.kept}")
        for end in ends
    ]
    return [reason for reason in reasons if reason]


def retire(
    context: Context,
    _step: Step,
    *,
    pcluster_delete: Callable[[str], None] | None = None,
) -> Result:
    """Delete the images that nothing uses, what an earlier call left of theirs, and old snapshots.

    Returns the AMIs that are `retired` and `kept`, `freed_gib` and `usd_month`, the most that is
    saved. Raises StepFailedError for what could not be read, with nothing deleted, and for what
    could not be deleted, after the others: a second call takes it up.
    """
    root, target, environment = context.root, context.target, context.environment
    keep = context.options.keep
    found = _look(root, target, environment, keep)
    if found.gaps:
        listed = "\n".join(f"  {gap}" for gap in found.gaps)
        raise StepFailedError(f"nothing is retired, because not all uses are known:\n{listed}")
    failures = [*_delete_snapshots(target, [*found.leftovers, *found.old_snapshots])]
    if found.old_snapshots:
        context.note("noted", deleted_snapshots=found.old_snapshots)
    retired = []
    kept = {image.ami: image.kept for image in found.images if image.kept is not None}
    ends = _delete_all(root, target, environment, found.unused, keep, pcluster_delete)
    for end in ends:
        context.check()
        image = end.image
        if end.failed is not None:
            failures.append(end.failed)
        elif end.kept is not None:
            kept[image.ami] = end.kept
        else:
            retired.append(image)
            context.note("noted", retired=image.ami, name=image.name, gib=image.gib)
            context.progress.note(f"retired {image.ami} ({image.name})")
    if failures:
        listed = "\n".join(f"  {failure}" for failure in failures)
        raise StepFailedError(
            f"{len(retired)} images are retired, and this failed; run it again:\n{listed}"
        )
    saved = [image.usd_month for image in retired if image.usd_month is not None]
    return {
        "retired": [image.ami for image in retired],
        "kept": kept,
        "freed_gib": sum(image.gib for image in retired),
        "usd_month": str(sum(saved, Decimal(0))) if len(saved) == len(retired) else None,
    }


def _look(root: Path, target: Target, environment: Environment, keep: int) -> _Findings:
    account = Account(environment.account, environment.region, target.client)
    # Read again each time: a rollout changes it, or a pull.
    lock = Repository(root).load_lock()
    images = [*_read_images(account, environment, root)]
    uses = read_uses(account, environment, lock, root)
    judged = _keep_last([_judge(image, uses, environment, lock) for image in images], keep)
    judged = [_keep_shared(account, environment, image) for image in judged]
    leftovers = [*_read_leftovers(account, {image.ami for image in images})]
    old_snapshots = [
        snapshot
        for snapshot in find_old_snapshots(account, environment, keep)
        if snapshot not in uses
    ]
    if account.gaps:
        why = f"not everything could be read: {account.gaps[0]}"
        judged = [replace(image, kept=image.kept or why) for image in judged]
        leftovers, old_snapshots = [], []
    return _Findings(judged, account.gaps, leftovers, old_snapshots)


def _delete_all(
    root: Path,
    target: Target,
    environment: Environment,
    doomed: Sequence[Retirable],
    keep: int,
    pcluster_delete: Callable[[str], None] | None,
) -> Iterator[_End]:
    """Delete images; yield how each ended."""
    if pcluster_delete is None:
        pcluster = Pcluster(root / ".venv-pcluster", target.process_environment())

        def pcluster_delete(image_id: str) -> None:
            pcluster.delete_image(image_id, environment.region)

    for image in doomed:
        # Something may have been started since the list was made.
        now = {each.ami: each for each in _look(root, target, environment, keep).images}.get(
            image.ami
        )
        if now is None:
            continue
        if now.kept is not None:
            yield _End(now, kept=now.kept)
            continue
        problems = [*_delete(target, now, pcluster_delete)]
        yield _End(now, failed="; ".join(problems) or None)


def _read_images(account: Account, environment: Environment, root: Path) -> Iterator[Retirable]:
    """Yield the images that carry the site's tags, the newest first."""
    price = _snapshot_price(environment.region, root)
    listed = account.pages(
        "ec2",
        "describe_images",
        "Images",
        Owners=["self"],
        IncludeDisabled=True,
        Filters=[
            {"Name": "tag-key", "Values": [names.TAG_IMAGE]},
            {"Name": f"tag:{names.TAG_ENVIRONMENT}", "Values": [environment.name]},
        ],
    )
    # ISO times sort as text.
    for item in sorted(listed, key=lambda item: str(item.get("CreationDate", "")), reverse=True):
        tags = tags_of(item)
        if names.TAG_IMAGE not in tags or tags.get(names.TAG_ENVIRONMENT) != environment.name:
            continue  # A server that filters otherwise must not lead to a deletion.
        disks = [disk["Ebs"] for disk in item.get("BlockDeviceMappings") or () if disk.get("Ebs")]
        gib = sum(int(disk.get("VolumeSize", 0)) for disk in disks if disk.get("SnapshotId"))
        state = str(item.get("State", "available"))
        yield Retirable(
            ami=item["ImageId"],
            name=str(item.get("Name", "")),
            image=tags[names.TAG_IMAGE],
            snapshots=tuple(disk["SnapshotId"] for disk in disks if disk.get("SnapshotId")),
            created=str(item.get("CreationDate", "")),
            gib=gib,
            usd_month=None if price is None else price * gib,
            kept=_find_obstacle(item, state),
            image_id=tags.get(TAG_IMAGE_ID),
            verified=tags.get(TAG_VERIFIED) == "passed",
        )


def _find_obstacle(item: Mapping[str, Any], state: str) -> str | None:
    """Return why EC2 would not delete an image."""
    if state in ("pending", "transient"):
        return "it is being made"
    protection = str(item.get("DeregistrationProtection") or "disabled")
    if protection != "disabled":
        return f"protected against deregistration ({protection})"
    return None


@cache
def _snapshot_price(region: str, root: Path) -> Decimal | None:
    """Return USD a month for a GiB of snapshots; None where it is not known."""
    price = load_prices(region, root=root).find("ebs", "snapshot")
    return None if isinstance(price, Unknown) else price.usd


def _judge(
    image: Retirable, uses: Mapping[str, str], environment: Environment, lock: ImageLock
) -> Retirable:
    """Return the image with the reason for which it is kept: its use, or that it is newer."""
    if image.kept:
        return image
    why = next((uses[each] for each in (image.ami, *image.snapshots) if each in uses), None)
    locked = lock.environments.get(environment.name, {}).get(image.image)
    if why is None and locked is None and image.image in environment.images:
        why = "the lock has none of it yet: this one may be promoted still"
    if why is None and locked is not None:
        created, baked = _time(image.created), _time(locked.baked)
        # One that is not promoted yet, perhaps another operator's.
        if created is None or baked is None:
            why = "nobody knows whether it is newer than the locked one"
        elif created > baked:
            why = "newer than the locked one"
    return replace(image, kept=why)


def _keep_last(images: list[Retirable], keep: int) -> list[Retirable]:
    """Keep of each image the last that were verified, beside those that are used."""
    left: dict[str, int] = {}
    judged = []
    for image in images:
        if image.kept is None and image.verified:
            count = left[image.image] = left.get(image.image, 0) + 1
            if count <= keep:
                image = replace(image, kept=f"one of the last {keep} that were verified")
        judged.append(image)
    return judged


def _keep_shared(account: Account, environment: Environment, image: Retirable) -> Retirable:
    """Keep what other accounts may start: what they do with it cannot be seen from here."""
    if image.kept is not None:
        return image
    answer = account.ask(
        "ec2", "describe_image_attribute", Attribute="launchPermission", ImageId=image.ami
    )
    allowed = [
        str(each.get("UserId") or each.get("Group") or each.get("OrganizationArn") or "others")
        for each in (answer or {}).get("LaunchPermissions") or ()
    ]
    others = sorted({each for each in allowed if each != environment.account})
    if others:
        why = f"shared with {', '.join(others)}; take back the launch permission first"
        return replace(image, kept=why)
    return image


def _read_leftovers(account: Account, present: set[str]) -> Iterator[str]:
    """Yield snapshots of images that were retired and are gone."""
    for snapshot in account.pages(
        "ec2",
        "describe_snapshots",
        "Snapshots",
        OwnerIds=["self"],
        Filters=[{"Name": "tag-key", "Values": [TAG_RETIRED]}],
    ):
        retired = tags_of(snapshot).get(TAG_RETIRED)
        if retired is not None and retired not in present:
            yield snapshot["SnapshotId"]


def _delete(
    target: Target, image: Retirable, pcluster_delete: Callable[[str], None]
) -> Iterator[str]:
    """Delete an image and its snapshots; yield what failed."""
    from botocore.exceptions import BotoCoreError, ClientError

    ec2 = target.client("ec2")
    try:
        if image.snapshots:
            mark = [{"Key": TAG_RETIRED, "Value": image.ami}]
            ec2.create_tags(Resources=list(image.snapshots), Tags=mark)
        if image.image_id is not None and _is_only(ec2, image):
            # It takes the build's stack, log group and files away too.
            pcluster_delete(image.image_id)
        if _exists(ec2, image.ami):
            ec2.deregister_image(ImageId=image.ami)
    except (BotoCoreError, ClientError, PclusterError) as error:
        if _code(error) not in _ABSENT:
            yield f"{image.ami} ({image.name}): {error}"
            return
    yield from _delete_snapshots(target, image.snapshots)


def _is_only(ec2: Any, image: Retirable) -> bool:
    """Return whether ParallelCluster's name of the image is of this AMI alone, and not of a copy."""
    filters = [{"Name": f"tag:{TAG_IMAGE_ID}", "Values": [image.image_id]}]
    found = ec2.describe_images(Owners=["self"], Filters=filters)["Images"]
    return [each["ImageId"] for each in found] == [image.ami]


def _exists(ec2: Any, ami: str) -> bool:
    from botocore.exceptions import ClientError

    try:
        return bool(ec2.describe_images(ImageIds=[ami])["Images"])
    except ClientError as error:
        if _code(error) in _ABSENT:
            return False
        raise


def _delete_snapshots(target: Target, snapshots: Iterable[str]) -> Iterator[str]:
    """Delete snapshots that no image needs; yield what failed."""
    from botocore.exceptions import BotoCoreError, ClientError

    ec2 = target.client("ec2")
    for snapshot in snapshots:
        try:
            ec2.delete_snapshot(SnapshotId=snapshot)
        except (BotoCoreError, ClientError) as error:
            # An image that is not ours was made from it, and keeps it.
            if _code(error) not in {*_ABSENT, "InvalidSnapshot.InUse"}:
                yield f"{snapshot}: {error}"


def _code(error: Exception) -> str:
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def _time(value: object) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
