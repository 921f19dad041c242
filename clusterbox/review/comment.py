"""Write a review as one Markdown comment, worst consequence first and within a size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from clusterbox.clusters.findings import Finding
from clusterbox.review.consequences import Severity, find_consequences
from clusterbox.review.markup import block, code, details, plural, table, text
from clusterbox.review.redaction import redact
from clusterbox.review.review import ClusterReview, EnvironmentReview, Review
from clusterbox.review.stacks import Impact, StackDiff

_SHOWN_CONSEQUENCES = 12
_SHOWN_ROWS = 40
_SIGNS = {
    Severity.NONE: "✅",
    Severity.LIVE: "✅",
    Severity.UPDATE: "🔵",
    Severity.DRAIN: "🟡",
    Severity.REPLACE: "🟠",
    Severity.GRANT: "🟠",
}


@dataclass(frozen=True)
class _Part:
    """A piece of the comment. Those of the lowest weight go first when the comment is too long."""

    text: str
    weight: int = 9
    # What stands in its place when it is left out.
    short: str = ""


def render_comment(review: Review, *, limit: int | None = None) -> str:
    """Return the review as Markdown for GitHub and GitLab.

    With a `limit` in characters the least important parts are left out, with a word about it:
    differences of stacks first, the verdict never.
    """
    parts = [part for part in _parts(review) if part.text]
    return _fit(parts, limit)


def _parts(review: Review) -> Iterator[_Part]:
    consequences = find_consequences(review)
    first, *others = consequences
    sign = _SIGNS.get(first.severity, "🔴")
    yield _Part(f"## {sign} {text(redact(first.sentence))}")
    if others:
        shown = [
            f"- {_SIGNS.get(item.severity, '🔴')} {text(redact(item.sentence))}"
            for item in others[:_SHOWN_CONSEQUENCES]
        ]
        left = len(others) - _SHOWN_CONSEQUENCES
        if left > 0:
            shown.append(f"- and {left} more, below")
        yield _Part("\n".join(shown))
    for environment in review.environments:
        if len(review.environments) > 1:
            yield _Part(f"## {text(environment.name)}")
        yield from _environment_parts(environment)
    yield _Part(_footer(review), 8)


def _environment_parts(review: EnvironmentReview) -> Iterator[_Part]:
    if review.problem is not None:
        yield _Part(block(redact(review.problem)), 8, "The problems are too many for a comment.")
        return
    if review.base_problem is not None:
        yield _Part(
            "The base cannot be read by this version, so everything below counts as new.\n\n"
            + block(redact(review.base_problem)),
            8,
        )
    yield from _cluster_parts(review)
    yield from _security_parts(review)
    yield from _stack_parts(review)
    yield from _cost_parts(review)
    yield _Part(_addresses(review), 5, "_The address budget was left out._")
    yield _Part(_images(review), 6, "_Changes of the image lock were left out._")


def _cluster_parts(review: EnvironmentReview) -> Iterator[_Part]:
    if not review.clusters:
        return
    rows = [
        [
            code(item.name),
            f"**{text(item.comparison.verdict.value)}**",
            text("; ".join(item.comparison.steps)) or "nothing",
            text(item.comparison.jobs),
        ]
        for item in review.clusters
    ]
    yield _Part(
        "### Clusters\n\n" + table(["cluster", "verdict", "to do first", "running jobs"], rows)
    )
    for item in review.clusters:
        yield from _one_cluster_parts(item)


def _one_cluster_parts(item: ClusterReview) -> Iterator[_Part]:
    if item.new_findings:
        yield _Part(
            details(
                f"{item.name}: {plural(len(item.new_findings), 'new finding')}",
                _findings(item.new_findings),
                opened=True,
            ),
            7,
            f"_New findings of {code(item.name)} were left out._",
        )
    if item.solved_findings:
        yield _Part(
            details(
                f"{item.name}: {plural(len(item.solved_findings), 'finding')} solved",
                _findings(item.solved_findings),
            ),
            3,
        )
    if item.comparison.changes:
        rows = [
            [
                code(change.path),
                _value(change.old),
                _value(change.new),
                text(change.policy),
                text(change.step),
            ]
            for change in item.comparison.changes[:_SHOWN_ROWS]
        ]
        left = len(item.comparison.changes) - len(rows)
        more = f"\n\nand {plural(left, 'change')} more" if left else ""
        yield _Part(
            details(
                f"{item.name}: {plural(len(item.comparison.changes), 'changed parameter')}",
                table(["parameter", "before", "after", "update policy", "to do first"], rows)
                + more,
            ),
            4,
            f"_Changed parameters of {code(item.name)} were left out._",
        )
    not_checked = item.validation.not_checked if item.validation else ()
    if not_checked:
        lines = [f"- {code(entry.rule)}: {text(entry.reason)}" for entry in not_checked]
        yield _Part(
            details(f"{item.name}: {plural(len(lines), 'rule')} not checked", "\n".join(lines)),
            1,
            f"_{plural(len(lines), 'rule')} not checked for {code(item.name)}._",
        )


def _findings(findings: Sequence[Finding]) -> str:
    rows = [
        [
            text(item.level.value),
            code(f"{item.file}:{item.line}" if item.line else item.file),
            code(item.path),
            text(redact(item.message)),
            text(item.advice),
        ]
        for item in findings[:_SHOWN_ROWS]
    ]
    left = len(findings) - len(rows)
    more = f"\n\nand {plural(left, 'finding')} more" if left else ""
    return table(["level", "where", "key", "finding", "what to do"], rows) + more


def _security_parts(review: EnvironmentReview) -> Iterator[_Part]:
    if not review.security:
        return
    wider = [item for item in review.security if item.kind == "widening"]
    others = [item for item in review.security if item.kind != "widening"]
    yield _Part("### Security")
    new = review.change in ("added", "moved")
    if wider:
        lines = [f"- 🔺 {text(redact(item.sentence))} ({code(item.stack)})" for item in wider]
        title = f"{plural(len(wider), 'grant')} of the new environment"
        body = "\n".join(lines)
        yield _Part(
            details(title, body) if new else f"**Wider than before:**\n\n{body}",
            4 if new else 8,
            f"_{plural(len(wider), 'widening')} too many for a comment._",
        )
    if others:
        lines = [f"- {text(redact(item.sentence))} ({code(item.stack)})" for item in others]
        yield _Part(
            details(f"{plural(len(others), 'other change')} of permissions", "\n".join(lines)),
            4,
            f"_{plural(len(others), 'other change')} of permissions left out._",
        )


def _stack_parts(review: EnvironmentReview) -> Iterator[_Part]:
    if not review.stacks:
        return
    rows = [
        [
            code(stack.stack),
            f"**{stack.change.value}**" if stack.losses else stack.change.value,
            _count(stack, Impact.CREATE, Impact.IMPORT),
            _count(stack, Impact.UPDATE),
            _count(stack, Impact.REPLACE, Impact.MAY_REPLACE),
            _count(stack, Impact.DESTROY, Impact.ORPHAN),
        ]
        for stack in review.stacks
    ]
    columns = ["stack", "change", "new", "updated", "replaced", "removed"]
    yield _Part("### Stacks\n\n" + table(columns, rows, right=(2, 3, 4, 5)), 7)
    losses = [
        f"- 🔴 **{item.impact.value}** {code(item.type)} {code(item.path)}"
        + (f" because of {', '.join(map(code, item.properties))}" if item.properties else "")
        for stack in review.stacks
        for item in stack.losses
    ]
    if losses and review.change != "removed":
        yield _Part("**What holds data:**\n\n" + "\n".join(losses), 8)
    for stack in review.stacks:
        if stack.text:
            yield _Part(
                details(f"{stack.stack}: difference", block(stack.text, "diff")),
                2,
                f"_The difference of {code(stack.stack)} "
                f"({plural(stack.text.count(chr(10)) + 1, 'line')}) was left out._",
            )


def _count(stack: StackDiff, *impacts: Impact) -> str:
    return str(stack.count(*impacts) or "")


def _cost_parts(review: EnvironmentReview) -> Iterator[_Part]:
    cost = review.cost
    if cost is None or not cost.parts:
        return
    rows = [
        [
            "**total**" if part is cost.total else code(part.part),
            _usd(part.idle_before),
            _usd(part.idle_after),
            _signed(part.idle_difference),
            _usd(part.worst_before),
            _usd(part.worst_after),
            _signed(part.worst_difference),
        ]
        for part in (*cost.parts, cost.total)
    ]
    columns = ["USD/month", "idle", "after", "±", "worst case", "after", "±"]
    if not cost.changes:
        total = cost.total
        yield _Part(
            f"### Cost\n\nAs before: {_usd(total.idle_after)} USD a month when idle, "
            f"{_usd(total.worst_after)} in the worst case, beside what is not priced.",
            6,
        )
        return
    yield _Part(
        "### Cost\n\n"
        + table(columns, rows, right=range(1, 7))
        + "\n\nIdle: head nodes, disks, network and MinCount nodes. Worst case: all nodes for all of "
        f"730 hours, at on-demand prices of {text(cost.prices_title)}.",
        6,
        "_Costs were left out._",
    )
    if cost.unpriced:
        lines = [
            f"- {code(line.part)} {text(line.item)}: {text(line.unknown)}" for line in cost.unpriced
        ]
        yield _Part(
            details(
                f"{plural(len(lines), 'item')} not priced, and not in the totals", "\n".join(lines)
            ),
            3,
            f"_{plural(len(lines), 'item')} not priced, and not in the totals._",
        )


def _addresses(review: EnvironmentReview) -> str:
    if not review.addresses:
        return ""
    rows = [
        [
            code(item.subnet),
            code(item.cidr),
            str(item.usable),
            _number(item.needed_before),
            _number(item.needed_after),
            str(item.free),
            str(item.may_also_come or ""),
        ]
        for item in review.addresses
    ]
    columns = ["subnet", "range", "usable", "needed", "after", "free", "may also come"]
    return "### Addresses\n\n" + table(columns, rows, right=range(2, 7))


def _images(review: EnvironmentReview) -> str:
    if not review.images:
        return ""
    rows = [
        [
            code(item.image),
            code(item.base.ami) if item.base else "",
            code(item.head.ami) if item.head else "",
            text(redact(item.head.origin)) if item.head else "removed from the lock",
            code(item.head.parent) if item.head and item.head.parent else "",
            text(item.head.parallelcluster_version or "") if item.head else "",
            ", ".join(map(code, item.used_by)) or "nothing",
        ]
        for item in review.images
    ]
    columns = ["image", "before", "after", "origin", "parent", "ParallelCluster", "used by"]
    return "### Images\n\n" + table(columns, rows)


def _footer(review: Review) -> str:
    compute = "running" if review.fleet.compute_running else "stopped"
    login = "running" if review.fleet.login_running else "stopped"
    lines = [
        f"{text(review.head)} compared with {text(review.base or 'nothing: there is no base')}. "
        f"Judged offline, with compute fleets {compute} and login nodes {login}.",
    ]
    if review.unchanged:
        lines.append(f"Unchanged: {', '.join(map(code, review.unchanged))}.")
    lines += [text(note) for note in review.notes]
    return "---\n" + " ".join(lines)


def _fit(parts: Sequence[_Part], limit: int | None) -> str:
    chosen = list(parts)
    notice = ""

    def joined() -> str:
        return (
            "\n\n".join([part.text for part in chosen if part.text] + [notice] * bool(notice))
            + "\n"
        )

    if limit is None or len(joined()) <= limit:
        return joined()
    notice = (
        f"_Some parts were left out: a comment may have {limit:,} characters. "
        "`clusterbox review` without `--limit` writes the whole one._"
    )
    # The least important first, and of those the longest, so that few are left out.
    order = sorted(range(len(parts)), key=lambda i: (parts[i].weight, -len(parts[i].text)))
    for index in order:
        if len(joined()) <= limit:
            break
        if parts[index].weight < 9 and len(parts[index].short) < len(parts[index].text):
            chosen[index] = _Part(parts[index].short)
    whole = joined()
    if len(whole) > limit:
        tail = f"\n\n{notice}\n"
        cut = whole[: max(limit - len(tail), 0)]
        whole = cut[: cut.rfind("\n")] + tail
    return whole


def _value(value: object) -> str:
    return "" if value is None else code(_shorten(redact(str(value))))


def _shorten(value: str, most: int = 120) -> str:
    return value if len(value) <= most else value[: most - 1] + "…"


def _usd(value: Decimal | None) -> str:
    return "" if value is None else f"{value:,.2f}"


def _signed(value: Decimal | None) -> str:
    return "" if not value else f"**{value:+,.2f}**"


def _number(value: int | None) -> str:
    return "" if value is None else str(value)
