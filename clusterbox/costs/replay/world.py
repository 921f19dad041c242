"""A simulated month of a cluster: what really happened, before anybody recorded or billed it.

Nothing of the meter is used here. Times are seconds since 1970 in UTC, with fractions.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

SEED = 20251001
START = int(datetime(2025, 10, 1, tzinfo=UTC).timestamp())
END = int(datetime(2025, 11, 1, tzinfo=UTC).timestamp())
CLUSTER = "ws-replay"
HOUR = 3600.0
DAY = 24 * HOUR
IDLE_SECONDS = 600.0


@dataclass(frozen=True)
class Pool:
    """A queue with one compute resource."""

    queue: str
    resource: str
    instance_type: str
    spot: bool
    zones: tuple[str, ...]
    cpus: int
    gpus: int
    most: int


@dataclass(frozen=True)
class Person:
    """A user with an account, the jobs a weekday, and what they are like."""

    user: str
    account: str
    queue: str
    jobs_a_day: float
    cpus: tuple[int, ...]
    minutes: tuple[int, int]
    name: str


@dataclass
class Instance:
    """An instance; `launched` is EC2's launch time, billing begins at `running`."""

    id: str
    node: str | None
    pool: Pool | None
    instance_type: str
    zone: str
    node_type: str
    launched: float
    running: float
    ready: float
    ended: float | None = None
    interruption: float | None = None
    interrupted: bool = False
    busy: list[tuple[float, float, int]] = field(default_factory=list)

    def free_cpus(self, at: float) -> int:
        """Return the CPUs that no job has at a time, or after it where jobs are to start later."""
        cpus = self.pool.cpus if self.pool else 0
        return cpus - sum(taken for _start, end, taken in self.busy if end > at)

    @property
    def idle_end(self) -> float:
        """When it is taken away if nothing more comes."""
        return max([self.ready, *(end for _start, end, _cpus in self.busy)]) + IDLE_SECONDS


@dataclass(frozen=True)
class Run:
    """A job from one start to its end, on all its nodes."""

    job: int
    name: str
    user: str
    account: str
    queue: str
    state: str
    start: float
    end: float
    cpus_a_node: int
    gpus_a_node: int
    instances: tuple[Instance, ...]


@dataclass(frozen=True)
class Disk:
    """A volume of one size over a time."""

    id: str
    gib: int
    iops: int
    start: float
    end: float | None


@dataclass(frozen=True)
class World:
    """All that happened."""

    instances: tuple[Instance, ...]
    runs: tuple[Run, ...]
    disks: tuple[Disk, ...]
    # Instance type and zone → from when on, USD an hour.
    spot: dict[tuple[str, str], list[tuple[float, float]]]


POOLS = (
    Pool("eco", "n8c32g", "t3a.2xlarge", False, ("us-west-2a",), 8, 0, 10),
    Pool("spot", "s32c", "m5.8xlarge", True, ("us-west-2a", "us-west-2b"), 32, 0, 8),
    Pool("gpu", "g4c", "g4dn.xlarge", False, ("us-west-2a",), 4, 1, 3),
)
PEOPLE = (
    Person("ana", "watersmart", "eco", 9, (1, 2, 4, 8), (10, 180), "veget"),
    Person("bo", "watersmart", "spot", 7, (8, 16, 32), (20, 300), "composite"),
    Person("cleo", "landsat", "eco", 14, (1,), (5, 20), "animate"),
    Person("dan", "landsat", "spot", 4, (32,), (30, 240), "mosaic"),
    Person("eve", "training", "gpu", 3, (4,), (30, 240), "train"),
)
# One job in so many of `mosaic` takes several nodes.
WIDE_EVERY = 4


def simulate(seed: int = SEED) -> World:
    """Return the month of a seed; the same one every time."""
    return _Simulation(random.Random(seed)).run()  # noqa: S311 - a simulation, no secret


class _Simulation:
    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.instances: list[Instance] = []
        self.runs: list[Run] = []
        self.disks: list[Disk] = []
        self.pools = {pool.queue: pool for pool in POOLS}
        self.spot = {
            (pool.instance_type, zone): list(self._spot_prices())
            for pool in POOLS
            if pool.spot
            for zone in pool.zones
        }
        self.waiting: list[tuple[float, int, int, float, Person]] = []
        self.count = 0

    def run(self) -> World:
        self._fixed()
        for person in PEOPLE:
            self._submit(person)
        while self.waiting:
            at, _order, job, seconds, person = heapq.heappop(self.waiting)
            if at < END:
                self._place(at, job, seconds, person)
        self._failed_launches()
        for one in self.instances:
            if one.pool is not None and one.ended is None:
                end = one.idle_end + self._between(0, 60)
                if one.interruption is not None and one.interruption < end:
                    one.interrupted, end = True, one.interruption
                one.ended = end if end < END + HOUR else None
        for one in self.instances:
            if one.node_type != "HeadNode":
                self.disks.append(Disk(f"vol-{one.id[2:]}", 60, 3000, one.launched, one.ended))
        return World(tuple(self.instances), tuple(self.runs), tuple(self.disks), self.spot)

    def _fixed(self) -> None:
        """Make the head node, which is stopped and comes back larger, a login node, and disks."""
        before = START - 20 * DAY
        stop, again = START + 13.4 * DAY, START + 13.5 * DAY
        head = "i-0head"
        self.instances += [
            Instance(
                head,
                None,
                None,
                "t3.medium",
                "us-west-2a",
                "HeadNode",
                before,
                before,
                before,
                stop,
            ),
            Instance(
                head, None, None, "t3.large", "us-west-2a", "HeadNode", again, again + 9, again
            ),
        ]
        login = START + 4.3 * DAY
        self.instances.append(
            Instance(
                "i-0login",
                None,
                None,
                "t3.medium",
                "us-west-2a",
                "LoginNode",
                login,
                login + 8,
                login,
            )
        )
        grown = START + 19.6 * DAY
        self.disks += [
            Disk("vol-0head", 60, 3000, before, None),
            Disk("vol-0shared", 500, 6000, before, grown),
            Disk("vol-0shared", 1000, 6000, grown, None),
        ]

    def _submit(self, person: Person) -> None:
        day = START - DAY
        while day < END:
            weekday = datetime.fromtimestamp(day, UTC).weekday() < 5
            jobs = person.jobs_a_day * (1.0 if weekday else 0.3)
            for _number in range(int(jobs + self.chance.random())):
                at = day + self._between(13, 24) * HOUR
                low, high = person.minutes
                self._push(at, None, self._between(low, high) * 60, person)
            day += DAY

    def _push(self, at: float, job: int | None, seconds: float, person: Person) -> None:
        if job is None:
            self.count += 1
            job = 1000 + self.count
        heapq.heappush(self.waiting, (at, len(self.waiting) + job * 1000, job, seconds, person))

    def _place(self, at: float, job: int, seconds: float, person: Person) -> None:
        pool = self.pools[person.queue]
        self._end_idle(pool, at)
        cpus = person.cpus[int(self.chance.random() * len(person.cpus))]
        wide = 3 if person.name == "mosaic" and job % WIDE_EVERY == 0 else 1
        chosen = [
            one
            for one in self.instances
            if one.pool is pool and one.ended is None and one.free_cpus(at) >= cpus
            if one.interruption is None or one.interruption > at
        ][:wide]
        up = sum(one.pool is pool and one.ended is None for one in self.instances)
        if up + wide - len(chosen) > pool.most:
            self._push(at + 180, job, seconds, person)
            return
        chosen += [self._launch(pool, at) for _number in range(wide - len(chosen))]
        start = max(at, *(one.ready for one in chosen)) + self._between(0.5, 3)
        end, state = start + seconds, "COMPLETED" if self.chance.random() > 0.08 else "FAILED"
        cut = min((one.interruption for one in chosen if one.interruption), default=None)
        if cut is not None and cut < end:
            # The node is lost: Slurm puts the job back into the queue.
            self._push(max(cut, at) + 90, job, seconds, person)
            if cut <= start:
                return
            end, state = cut, "NODE_FAIL"
        for one in chosen:
            one.busy.append((start, end, cpus))
        gpus = pool.gpus
        self.runs.append(
            Run(
                job,
                person.name,
                person.user,
                person.account,
                person.queue,
                state,
                start,
                end,
                cpus,
                gpus,
                tuple(chosen),
            )
        )

    def _end_idle(self, pool: Pool, at: float) -> None:
        for one in self.instances:
            if one.pool is not pool or one.ended is not None:
                continue
            if one.interruption is not None and one.interruption <= min(at, one.idle_end):
                one.ended, one.interrupted = one.interruption, True
            elif one.idle_end < at:
                one.ended = min(at, one.idle_end + self._between(0, 60))

    def _launch(self, pool: Pool, at: float) -> Instance:
        taken = {one.node for one in self.instances if one.pool is pool and one.ended is None}
        names = (f"{pool.queue}-dy-{pool.resource}-{number}" for number in range(1, pool.most + 1))
        node = next(name for name in names if name not in taken)
        launched = at + self._between(4, 20)
        running = launched + self._between(4, 15)
        interruption = None
        if pool.spot and self.chance.random() < 0.2:
            # A few within the first hour, which AWS does not bill.
            interruption = running + self._between(0.2, 9) * HOUR
        one = Instance(
            id=f"i-{len(self.instances):08x}",
            node=node,
            pool=pool,
            instance_type=pool.instance_type,
            zone=pool.zones[int(self.chance.random() * len(pool.zones))],
            node_type="Compute",
            launched=launched,
            running=running,
            ready=running + self._between(120, 260),
            interruption=interruption,
        )
        self.instances.append(one)
        return one

    def _failed_launches(self) -> None:
        """Instances that were ended within a minute, of which a minute is billed."""
        pool = self.pools["eco"]
        for number in range(12):
            launched = START + (number * 2.5 + 0.1) * DAY
            running = launched + 6
            self.instances.append(
                Instance(
                    f"i-0fail{number:04x}",
                    f"eco-dy-n8c32g-{pool.most}",
                    pool,
                    pool.instance_type,
                    "us-west-2a",
                    "Compute",
                    launched,
                    running,
                    running + 900,
                    ended=running + self._between(12, 50),
                )
            )

    def _spot_prices(self) -> Iterator[tuple[float, float]]:
        """Yield a walk of prices around 40 % of 1.536 USD, changed a few times a day."""
        at, usd = START - 3 * DAY, 0.62
        while at < END:
            yield at, round(usd, 4)
            at += self._between(2, 11) * HOUR
            usd = min(0.95, max(0.42, usd * self._between(0.94, 1.065)))

    def _between(self, low: float, high: float) -> float:
        return low + (high - low) * self.chance.random()
