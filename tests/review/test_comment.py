from __future__ import annotations

from decimal import Decimal

import pytest

from clusterbox.clusters.compare import Change, Comparison, Verdict
from clusterbox.clusters.findings import Finding, Level, NotChecked, Validation
from clusterbox.review.changes import SecurityChange
from clusterbox.review.comment import render_comment
from clusterbox.review.consequences import Severity, find_consequences
from clusterbox.review.records import render_json
from clusterbox.review.review import ClusterReview, EnvironmentReview, FleetState, Review
from clusterbox.review.stacks import Impact, ResourceDiff, StackChange, StackDiff


def _stack(name: str = "ws-dev-storage", *resources: ResourceDiff, text: str = "x") -> StackDiff:
    return StackDiff("ws-dev", name, StackChange.CHANGED, resources, 0, text)


def _resource(kind: str, impact: Impact) -> ResourceDiff:
    return ResourceDiff("Id", kind, "ws-dev-storage/Thing/Resource", impact, ("Encrypted",))


def _cluster(verdict: Verdict, **parts: object) -> ClusterReview:
    comparison = Comparison("ws-eco", verdict, True, (), (), "Running jobs go on.")
    values: dict[str, object] = {
        "comparison": comparison,
        "new_findings": (),
        "solved_findings": (),
        "validation": None,
        **parts,
    }
    return ClusterReview("ws-eco", **values)  # type: ignore[arg-type]


def _finding(level: Level = Level.ERROR, message: str = "is wrong") -> Finding:
    return Finding(
        "ws-eco", level, "Rule", "HeadNode", "cluster_configs/eco.yaml", 7, message, "mend it"
    )


def _widening(sentence: str = "role r may now s3:*") -> SecurityChange:
    return SecurityChange("ws-dev-identity", "Role", "r", "widening", "statement added", sentence)


def _review(*environments: EnvironmentReview) -> Review:
    return Review("main (0123456789)", "change", environments, (), FleetState())


def _environment(**parts: object) -> EnvironmentReview:
    return EnvironmentReview("ws-dev", "changed", "427491229895", "us-west-2", **parts)  # type: ignore[arg-type]


REPLACED = _resource("AWS::EFS::FileSystem", Impact.REPLACE)


@pytest.mark.parametrize(
    ("parts", "severity", "sentence"),
    [
        ({"problem": "2 problems"}, Severity.BROKEN, "ws-dev cannot be deployed"),
        ({"stacks": (_stack("s", REPLACED),)}, Severity.DATA, "is REPLACED"),
        (
            {"clusters": (_cluster(Verdict.LIVE, new_findings=(_finding(),)),)},
            Severity.REFUSED,
            "would refuse ws-eco: 1 new finding",
        ),
        ({"security": (_widening(),)}, Severity.WIDENING, "1 permission or protection"),
        (
            {"clusters": (_cluster(Verdict.LIVE, versions=("3.15.0", "3.16.1")),)},
            Severity.REPLACE_CLUSTER,
            "ParallelCluster 3.15.0 becomes 3.16.1",
        ),
        ({"clusters": (_cluster(Verdict.REPLACES),)}, Severity.REPLACE_CLUSTER, "replaces"),
        ({"clusters": (_cluster(Verdict.TERMINATES),)}, Severity.STOP, "terminates nodes"),
        ({"clusters": (_cluster(Verdict.STOPS),)}, Severity.STOP, "stops the fleet"),
        ({"clusters": (_cluster(Verdict.DRAINS),)}, Severity.DRAIN, "drains nodes"),
        (
            {"stacks": (_stack("s", _resource("AWS::EC2::Instance", Impact.MAY_REPLACE)),)},
            Severity.REPLACE,
            "1 resource replaced or may be",
        ),
        ({"clusters": (_cluster(Verdict.LIVE),)}, Severity.LIVE, "live"),
        ({"stacks": (_stack(),)}, Severity.UPDATE, "1 stack changed"),
    ],
)
def test_each_consequence_leads_the_comment_when_it_is_the_worst(
    parts: dict[str, object], severity: Severity, sentence: str
) -> None:
    review = _review(_environment(**parts))
    worst = find_consequences(review)[0]
    assert worst.severity is severity
    assert sentence in worst.sentence
    first = render_comment(review).splitlines()[0]
    assert first.startswith("## ")
    assert sentence.split()[0] in first


def test_every_verdict_has_a_consequence_or_is_none() -> None:
    for verdict in Verdict:
        found = find_consequences(_review(_environment(clusters=(_cluster(verdict),))))
        expected = verdict is Verdict.UNCHANGED
        assert (found[0].severity is Severity.NONE) == expected


def test_the_worst_of_several_comes_first() -> None:
    review = _review(
        _environment(
            stacks=(_stack("s", REPLACED),),
            security=(_widening(),),
            clusters=(_cluster(Verdict.DRAINS),),
        )
    )
    found = [item.severity for item in find_consequences(review)]
    assert found == sorted(found, reverse=True)
    assert found[0] is Severity.DATA


def test_grants_of_a_new_environment_are_no_widening() -> None:
    new = EnvironmentReview("trial", "added", "1", "r", security=(_widening(),))
    assert Severity.WIDENING not in {item.severity for item in find_consequences(_review(new))}


def test_what_holds_data_is_listed_apart() -> None:
    comment = render_comment(_review(_environment(stacks=(_stack("s", REPLACED),))))
    assert "**What holds data:**" in comment
    assert "because of `Encrypted`" in comment


def test_secrets_and_markup_of_a_change_do_nothing() -> None:
    change = Change(
        "HeadNode.X",
        (),
        "AKIAIOSFODNN7EXAMPLE",
        "</details><script>",
        "P",
        True,
        None,
        (),
        Verdict.LIVE,
        None,
    )
    comparison = Comparison("ws-eco", Verdict.LIVE, True, (change,), (), "jobs @all")
    finding = _finding(message="Password: swordfish | x")
    comment = render_comment(
        _review(
            _environment(
                clusters=(_cluster(Verdict.LIVE, comparison=comparison, new_findings=(finding,)),),
                security=(_widening("@root may <b>"),),
            )
        )
    )
    for hidden in ("AKIAIOSFODNN7EXAMPLE", "swordfish", "@all", "@root", "<b>"):
        assert hidden not in comment
    assert comment.count("</details>") == comment.count("<details") + 1  # the one in a code span


def _large() -> Review:
    stacks = tuple(
        _stack(f"stack-{i}", text=f"line {i}\n" * (2000 if i else 200)) for i in range(9)
    )
    not_checked = tuple(NotChecked("ws-eco", f"Rule{i}", "why " * 40) for i in range(100))
    return _review(
        _environment(
            stacks=stacks,
            security=tuple(_widening(f"role {i} may now s3:*") for i in range(20)),
            clusters=(
                _cluster(
                    Verdict.LIVE,
                    new_findings=(_finding(),),
                    validation=Validation("ws-eco", (), not_checked),
                ),
            ),
        )
    )


@pytest.mark.parametrize("limit", [65_536, 30_000, 8_000])
def test_a_long_comment_is_cut_where_it_matters_least(limit: int) -> None:
    review = _large()
    whole = render_comment(review)
    comment = render_comment(review, limit=limit)
    assert len(whole) > 65_536 >= limit >= len(comment)
    assert comment.splitlines()[0] == whole.splitlines()[0]
    assert "role 19 may now" in comment
    assert "is wrong" in comment
    assert f"a comment may have {limit:,} characters" in comment
    assert "The difference of `stack-1` (2001 lines) was left out." in comment
    assert comment.count("<details") == comment.count("</details>")


def test_a_comment_that_fits_is_whole() -> None:
    review = _review(_environment(stacks=(_stack(),)))
    assert render_comment(review, limit=65_536) == render_comment(review)


def test_even_a_tiny_limit_is_kept() -> None:
    assert len(render_comment(_large(), limit=600)) <= 600


def test_json_has_the_consequences_first_and_no_secret() -> None:
    stack = _stack("s", REPLACED, text="Password: swordfish")
    written = render_json(_review(_environment(stacks=(stack,))))
    assert written.index('"consequences"') < written.index('"environments"')
    assert '"severity": "data"' in written
    assert "swordfish" not in written


def test_money_is_exact_in_json() -> None:
    assert '"0.10"' in render_json(_review(_environment(cost=Decimal("0.10"))))
