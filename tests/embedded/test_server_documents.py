"""Systems Manager documents."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from clusterbox.embedded.account import EmbeddedAccount
from tests.embedded.stack_driver import Stack


def document(name: str, description: str = "first") -> dict[str, Any]:
    content = {"schemaVersion": "2.2", "description": description, "mainSteps": []}
    properties = {"Name": name, "Content": content, "UpdateMethod": "NewVersion"}
    return {"Document": {"Type": "AWS::SSM::Document", "Properties": properties}}


def send_code(account: EmbeddedAccount, name: str) -> str:
    """Return the error with which a command is refused."""
    with pytest.raises(ClientError) as caught:
        account.client("ssm").send_command(InstanceIds=["i-0aa"], DocumentName=name)
    return str(caught.value.response["Error"]["Code"])


def test_a_document_can_be_run_while_it_exists_and_reaches_no_machine(
    account: EmbeddedAccount, stack: Stack
) -> None:
    assert send_code(account, "queues") == "InvalidDocument"
    assert stack.create(document("queues")) == "CREATE_COMPLETE"
    assert stack.ids() == {"Document": "queues"}
    assert send_code(account, "queues") == "InvalidInstanceId"
    assert stack.update(document("queues", "second")) == "UPDATE_COMPLETE"
    assert stack.ids() == {"Document": "queues"}
    assert stack.delete() == "DELETE_COMPLETE"
    assert send_code(account, "queues") == "InvalidDocument"


def test_two_documents_cannot_have_one_name(account: EmbeddedAccount, stack: Stack) -> None:
    twice = document("once") | {"Second": document("once")["Document"] | {"DependsOn": "Document"}}
    assert stack.create(twice) == "ROLLBACK_COMPLETE"
    assert "already exists" in stack.failures()["Second"]
