from __future__ import annotations

import filecmp
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clusterbox.deployment.cdk import Assembly, _find_reasons, synthesize, without_aws
from clusterbox.errors import ClusterboxError, InputError
from tests.deployment.conftest import copy_repository


@pytest.fixture(scope="module")
def assembly(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    return synthesize(root, "ws-dev", tmp_path_factory.mktemp("first"))


def test_two_runs_of_synth_are_byte_for_byte_the_same(
    root: Path, assembly: Assembly, tmp_path: Path
) -> None:
    again = synthesize(root, "ws-dev", tmp_path)
    files = [f"{stack}.template.json" for stack in again.stacks] + ["manifest.json"]
    same, different, missing = filecmp.cmpfiles(assembly.folder, tmp_path, files, shallow=False)
    assert (different, missing) == ([], [])
    assert same == files


@pytest.mark.integration
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare of util-linux")
def test_synth_needs_neither_network_nor_credentials(root: Path, tmp_path: Path) -> None:
    environment = without_aws(os.environ) | {
        "CDK_OUTDIR": str(tmp_path),
        "CDK_CONTEXT_JSON": '{"env": "sandbox"}',
        "HOME": str(tmp_path / "nobody"),
    }
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", sys.executable, "app.py"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "sandbox-network.template.json").exists()


@pytest.mark.parametrize("environment", ["ws-dev", "sandbox"])
def test_synth_leaves_nothing_for_the_cli_to_look_up(
    root: Path, tmp_path: Path, environment: str
) -> None:
    synthesize(root, environment, tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest.get("missing", []) == []


def test_stacks_come_in_the_order_of_their_dependencies(assembly: Assembly) -> None:
    position = {stack: index for index, stack in enumerate(assembly.stacks)}
    for stack, needed in assembly.dependencies.items():
        assert all(position[item] < position[stack] for item in needed), stack


def test_what_a_stack_stands_on_is_found_over_several_steps(assembly: Assembly) -> None:
    assert assembly.with_dependencies(["ws-dev-security"]) == (
        "ws-dev-encryption",
        "ws-dev-storage",
        "ws-dev-security",
    )


def test_a_wrong_environment_file_is_bad_input_with_every_problem(
    root: Path, tmp_path: Path
) -> None:
    copy = copy_repository(root, tmp_path / "copy")
    path = copy / "environments" / "ws-dev.yaml"
    text = path.read_text()
    path.write_text(text.replace("root_gib: 60", "root_gib: 4").replace("Owner:", "Owned:"))
    with pytest.raises(InputError) as caught:
        synthesize(copy, "ws-dev", tmp_path / "out")
    message = str(caught.value)
    assert "admin_box.root_gib: must be 8 or more (found: 4)" in message
    assert "tags.Owned: is not a known key" in message
    assert not list(tmp_path.glob("out/*.template.json"))


def test_a_queue_that_cannot_have_addresses_is_refused_with_the_arithmetic(
    root: Path, tmp_path: Path
) -> None:
    copy = copy_repository(root, tmp_path / "copy")
    path = copy / "cluster_configs" / "eco.yaml"
    path.write_text(path.read_text().replace("MaxCount: 3", "MaxCount: 1008", 1))
    with pytest.raises(InputError) as caught:
        synthesize(copy, "ws-dev", tmp_path / "out")
    message = str(caught.value)
    assert "(1024 - 5) = 1019 usable addresses, but 1020 may be needed, 1 too many" in message
    assert "1008 (MaxCount of eco/n8c32g of ws-eco)" in message


def test_an_unexplained_finding_of_the_rules_fails_synth(root: Path, tmp_path: Path) -> None:
    copy = copy_repository(root, tmp_path / "copy")
    path = copy / "stacks" / "admin.py"
    text = path.read_text()
    assert "monitoring=True" in text
    path.write_text(text.replace("monitoring=True", "monitoring=False"))
    with pytest.raises(ClusterboxError) as caught:
        synthesize(copy, "ws-dev", tmp_path / "out", rules=True)
    assert "findings that nobody has explained" in str(caught.value)
    assert "AwsSolutions-EC28 at ws-dev-admin/Box" in str(caught.value)


def test_a_failed_deployment_tells_the_reasons_and_not_what_was_only_cancelled() -> None:
    lines = [
        "Failed resources:",
        'site-c | 4:44:29 PM | CREATE_FAILED | Custom::PclusterCluster | Cluster Failed: {"errors": '
        '[{"level": "ERROR", "type": "KeyPairValidator", "message": "no such key"}], "message": "bad"}',
        "site-c | 4:44:29 PM | CREATE_FAILED | AWS::SSM::Parameter | P Resource creation cancelled",
        "site-n | 4:44:30 PM | CREATE_FAILED | AWS::EC2::Subnet | Subnet The CIDR conflicts",
        "❌  site-c failed to deploy",
    ]
    assert _find_reasons(lines).splitlines() == [
        "  site-c: Cluster (Custom::PclusterCluster)",
        "    error KeyPairValidator: no such key",
        "  site-n: Subnet (AWS::EC2::Subnet)",
        "    The CIDR conflicts",
        "  site-c failed to deploy",
    ]
