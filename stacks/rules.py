"""The rule packs that every synth of a review runs: AwsSolutions and NIST 800-53 R5."""

from __future__ import annotations

import aws_cdk as cdk
import cdk_nag


def add_rules(app: cdk.App) -> None:
    """Add cdk-nag's rule packs to an app; synth then fails on a finding nobody has explained."""
    cdk.Validations.of(app).add_plugins(
        cdk_nag.AwsSolutionsChecks(app), cdk_nag.NIST80053R5Checks(app)
    )
