"""AWS Budgets."""

from __future__ import annotations

from typing import Any

from ministack.services import budgets

from clusterbox.embedded.server.ministack_api import (
    Properties,
    Resource,
    ResourceType,
    account_id,
    call,
    physical_name,
)


def _budget(properties: Properties, name: str) -> dict[str, Any]:
    budget = {**properties["Budget"], "BudgetName": name}
    if limit := budget.get("BudgetLimit"):
        # The API carries amounts as text, a template as numbers.
        budget["BudgetLimit"] = {"Amount": str(limit["Amount"]), "Unit": limit["Unit"]}
    return budget


def _notifications(properties: Properties) -> list[dict[str, Any]]:
    return [
        {
            "Notification": {
                **entry["Notification"],
                "Threshold": float(entry["Notification"]["Threshold"]),
            },
            "Subscribers": entry["Subscribers"],
        }
        for entry in properties.get("NotificationsWithSubscribers") or []
    ]


def create_budget(logical_id: str, properties: Properties, stack: str) -> Resource:
    """Create a budget with its notifications; Ref is its name."""
    name = properties["Budget"].get("BudgetName") or physical_name(stack, logical_id, 100)
    call(
        budgets._create_budget,
        {
            "Budget": _budget(properties, name),
            "NotificationsWithSubscribers": _notifications(properties),
            "ResourceTags": properties.get("ResourceTags") or [],
        },
    )
    return name, {}


def update_budget(name: str, _old: Properties, properties: Properties, stack: str) -> Resource:
    """Change the limit, period and filters in place; another name makes another budget."""
    wanted = properties["Budget"].get("BudgetName")
    if wanted and wanted != name:
        return create_budget(name, properties, stack)
    call(
        budgets._update_budget,
        {"AccountId": account_id(), "NewBudget": _budget(properties, name)},
    )
    return name, {}


def delete_budget(name: str, _properties: Properties) -> None:
    """Delete the budget and its notifications; one that is gone already is no error."""
    if name in budgets._budgets:
        call(budgets._delete_budget, {"AccountId": account_id(), "BudgetName": name})


RESOURCE_TYPES: dict[str, ResourceType] = {
    "AWS::Budgets::Budget": {
        "create": create_budget,
        "update": update_budget,
        "delete": delete_budget,
        # Subscribers cannot be changed: CloudFormation makes the budget anew.
        "replacing": ("NotificationsWithSubscribers", "ResourceTags"),
    },
}


def mend() -> None:
    """Leave ministack's own budgets as they are."""
