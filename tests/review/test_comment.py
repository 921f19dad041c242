from __future__ import annotations

from decimal import Decimal

import pytest

from clusterbox.clusters.compare import Change, Comparison, Verdict
from clusterbox.clusters.findings import Finding, Level, NotChecked, Validation
from clusterbox.review.changes import Grade, SecurityChange
from clusterbox.review.comment import render_comment
from clusterbox.review.consequences import Severity, find_consequences
from clusterbox.review.exports import ExportInUse
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


def _widening(
    sentence: str = "role r may now s3:*", grade: Grade = Grade.STATEMENT
) -> SecurityChange:
    return SecurityChange(
        "ws-dev-identity", "Role", "r", "widening", "statement added", sentence, grade
    )


def _review(*environments: EnvironmentReview) -> Review:
    return Review("main (0123456789)", "change", environments, (), FleetState())


def _environment(**parts: object) -> EnvironmentReview:
    values: dict[str, object] = {"change": "changed", **parts}
    return EnvironmentReview("ws-dev", account="427491229895", region="us-west-2", **values)  # type: ignore[arg-type]


REPLACED = _resource("AWS::EFS::FileSystem", Impact.REPLACE)


@pytest.mark.parametrize(
    ("parts", "severity", "sentence"),
    [
        ({"problem": "2 problems"}, Severity.BROKEN, "ws-dev cannot be deployed"),
        ({"stacks": (_stack("s", REPLACED),)}, Severity.DATA, "is REPLACED"),
        ({"change": "moved", "moved_from": "1 in us-east-1"}, Severity.DATA, "moves from 1 in"),
        (
            {"clusters": (_cluster(Verdict.LIVE, new_findings=(_finding(),)),)},
            Severity.REFUSED,
            "would refuse ws-eco: 1 new finding",
        ),
        (
            {"security": (_widening(grade=Grade.WILDCARD),)},
            Severity.WIDENING,
            "role r may now s3:*",
        ),
        ({"security": (_widening(),)}, Severity.GRANT, "role r may now s3:*"),
        (
            {"exports_in_use": (ExportInUse("s", ("Data",), ("ws-eco",)),)},
            Severity.REFUSED,
            "CloudFormation would refuse to update s: ws-eco import",
        ),
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


def test_what_is_alarming_anywhere_is_a_widening_of_a_new_environment_too() -> None:
    alarm = _widening("ssh is open to everyone", Grade.ALARM)
    new = EnvironmentReview("trial", "added", "1", "r", security=(_widening(), alarm))
    worst = find_consequences(_review(new))[0]
    assert worst.severity is Severity.WIDENING
    assert worst.sentence == "trial: ssh is open to everyone."


def test_the_heaviest_widening_is_told_in_its_own_words() -> None:
    lost = _widening("role r has lost its boundary", Grade.ALARM)
    review = _review(_environment(security=(_widening(), lost, _widening("x"))))
    assert find_consequences(review)[0].sentence == (
        "ws-dev: role r has lost its boundary; and 2 other widenings of permissions or protections."
    )


def test_the_loss_of_data_says_in_which_stack() -> None:
    gone = _resource("AWS::S3::Bucket", Impact.ORPHAN)
    review = _review(_environment(stacks=(_stack("ws-dev-storage", gone, REPLACED),)))
    first, second = find_consequences(review)[:2]
    assert first.sentence.startswith("ws-dev-storage: AWS::EFS::FileSystem ")
    assert "is REPLACED" in first.sentence
    assert "is given up" in second.sentence


def test_the_first_line_is_short_and_the_whole_sentence_stands_below() -> None:
    sentence = f"role r may now s3:* on {'x' * 90} and {'y' * 90} (before: only on a bucket)"
    comment = render_comment(_review(_environment(security=(_widening(sentence),))))
    first = comment.splitlines()[0]
    assert "role r may now" in first
    assert "before" not in first
    assert len(first) < 200
    assert "y" * 90 in comment
    assert "(before: only on a bucket)" in comment


def test_grants_of_a_new_stack_come_below_what_happens_to_jobs() -> None:
    new = StackDiff("ws-dev", "ws-dev-identity", StackChange.ADDED, (), 0, "x")
    found = find_consequences(
        _review(
            _environment(
                stacks=(new,), security=(_widening(),), clusters=(_cluster(Verdict.TERMINATES),)
            )
        )
    )
    assert [item.severity for item in found[:2]] == [Severity.STOP, Severity.GRANT]
    assert "1 grant of new stacks (ws-dev-identity)" in found[1].sentence


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
