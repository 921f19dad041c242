from __future__ import annotations

import difflib
import json
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from clusterbox.cli.main import main
from clusterbox.clusters.composed import ComposedCluster, compose_repository
from clusterbox.clusters.template import (
    GeneratedTemplate,
    generate_template,
    name_assets,
    write_files,
)
from clusterbox.errors import InputError, ProblemsError
from clusterbox.pcluster import Pcluster
from tests.clusters.comparison_base import drop, edited, put

QUEUES = "ComputeFleetQueuesNestedStackQueuesNestedStackResource4C142E85"
SPOT = ("Scheduling", "SlurmQueues", 1)
ASSET = "0123456789abcdef" * 4


def generate(root: Path, cluster: ComposedCluster) -> GeneratedTemplate:
    pcluster = Pcluster(root / ".venv-pcluster", os.environ)
    return generate_template(pcluster, root / ".venv" / "bin" / "node", cluster)


@pytest.fixture(scope="module")
def eco(root: Path) -> ComposedCluster:
    return compose_repository(root)["ws-eco"]


@pytest.fixture(scope="module")
def generated(root: Path, eco: ComposedCluster) -> GeneratedTemplate:
    return generate(root, eco)


@pytest.mark.integration
def test_it_is_the_stack_that_parallelcluster_would_create(generated: GeneratedTemplate) -> None:
    types = Counter(item["Type"] for item in generated.template["Resources"].values())
    assert sum(types.values()) == 33
    assert types["AWS::EC2::Instance"] == 1
    assert types["AWS::CloudFormation::Stack"] == 1
    assert list(generated.nested) == [QUEUES]
    nested = Counter(item["Type"] for item in generated.nested[QUEUES]["Resources"].values())
    assert nested["AWS::EC2::LaunchTemplate"] == 2
    assert generated.configuration["Scheduling"]["SlurmQueues"][0]["Name"] == "eco"
    assert all(len(digest) == 64 for digest in generated.code.values())
    assert any(name.endswith(".py") for name in generated.code)


@pytest.mark.integration
def test_two_runs_give_the_same_bytes(
    root: Path, eco: ComposedCluster, generated: GeneratedTemplate
) -> None:
    again = generate(root, eco)
    for form in ("yaml", "json"):
        texts = generated.render(form)
        assert again.render(form) == texts
        assert sorted(texts) == sorted(
            f"{name}.{form}"
            for name in ("template", f"nested-{QUEUES}", "cluster-config", "custom-resources")
        )


@pytest.mark.integration
def test_a_change_of_a_queue_is_a_small_difference(
    root: Path, eco: ComposedCluster, generated: GeneratedTemplate
) -> None:
    changed = replace(
        eco,
        configuration=edited(
            put(*SPOT, "ComputeResources", 0, "MaxCount", value=5),
            put(*SPOT, "CapacityType", value="ONDEMAND"),
            put(*SPOT, "AllocationStrategy", value="lowest-price"),
            base=dict(eco.configuration),
        ),
    )
    before, after = generated.render("yaml"), generate(root, changed).render("yaml")
    differences = [
        f"{name}: {line}"
        for name in before
        for line in difflib.unified_diff(before[name].splitlines(), after[name].splitlines(), n=0)
        if line[0] in "+-" and line[:3] not in ("+++", "---")
    ]
    assert "cluster-config.yaml: +      MaxCount: 5" in differences
    assert any("nested-" in line and "MarketType: spot" in line for line in differences)
    assert not any(line.startswith("template.yaml") for line in differences)
    assert len(differences) < 20


@pytest.mark.integration
def test_what_parallelcluster_refuses_is_told_with_its_place(
    root: Path, eco: ComposedCluster
) -> None:
    broken = edited(put("HeadNode", "InstanceType", value="t3.huge"), base=dict(eco.configuration))
    with pytest.raises(ProblemsError) as caught:
        generate(root, replace(eco, configuration=broken))
    problem = caught.value.problems[0]
    assert (problem.file, problem.path) == ("cluster_configs/eco.yaml", "HeadNode.InstanceType")
    assert problem.line == eco.line_of(("HeadNode", "InstanceType"))
    assert "t3.huge" in problem.message


@pytest.mark.integration
def test_the_command_writes_a_folder_and_tells_what_was_assumed(
    root: Path, eco: ComposedCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    native = tmp_path / "my_cluster.yaml"
    native.write_text(yaml.safe_dump(dict(eco.configuration)), encoding="utf-8")
    words = ["clusters", "template", "--file", str(native), "--output", str(tmp_path / "out")]
    assert main([*words, "--format", "json"]) == 0
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 4
    assert "assumed: whether image ami-" in said.err
    written = tmp_path / "out" / "my-cluster"
    assert len(json.loads((written / "template.json").read_text("utf-8"))["Resources"]) == 33
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["my-cluster"]
    assert main(words) == 2
    assert "replace it with --force" in capsys.readouterr().err


@pytest.mark.integration
def test_a_configuration_without_a_bucket_uses_parallelcluster_s_own(
    root: Path, eco: ComposedCluster
) -> None:
    configuration = edited(drop("CustomS3Bucket"), base=dict(eco.configuration))
    made = generate(root, replace(eco, configuration=configuration))
    assert re.search(r"parallelcluster-[0-9a-f]{16}-v1-do-not-delete", str(made.template))
    assert not any("parallelcluster-" in reason for reason in made.assumed)


def test_nested_stacks_are_named_by_their_resource_and_not_by_a_hash() -> None:
    parameter = f"AssetParameters{ASSET}S3Bucket47BE8BE3"
    generated = GeneratedTemplate(
        template={
            "Parameters": {parameter: {"Description": f'bucket for asset "{ASSET}"'}},
            "Resources": {
                "Queues": {
                    "Type": "AWS::CloudFormation::Stack",
                    "Properties": {"TemplateURL": {"Ref": parameter}},
                }
            },
        },
        nested={ASSET: {"Resources": {}}},
        configuration={},
        code={},
        assumed=(),
    )
    named = name_assets(generated)
    assert named.nested == {"Queues": {"Resources": {}}}
    assert named.template["Parameters"] == {
        "AssetParametersQueuesS3Bucket": {"Description": 'bucket for asset "Queues"'}
    }
    assert named.template["Resources"]["Queues"]["Properties"] == {
        "TemplateURL": {"Ref": "AssetParametersQueuesS3Bucket"}
    }


def test_a_text_of_several_lines_is_written_as_lines() -> None:
    generated = GeneratedTemplate({"b": "one\ntwo\n", "a": 1}, {}, {}, {}, ())
    assert generated.render("yaml")["template.yaml"] == "a: 1\nb: |\n  one\n  two\n"


def test_a_folder_is_replaced_as_a_whole_and_only_when_asked(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    write_files(folder, {"a": "1", "b": "2"}, force=False)
    with pytest.raises(InputError, match="--force"):
        write_files(folder, {"a": "3"}, force=False)
    assert (folder / "a").read_text("utf-8") == "1"
    write_files(folder, {"a": "3"}, force=True)
    assert {path.name: path.read_text("utf-8") for path in folder.iterdir()} == {"a": "3"}
    assert list(tmp_path.iterdir()) == [folder]
