"""The site's own rules for a cluster's configuration, beside ParallelCluster's validators."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from clusterbox.clusters import general_rules as general
from clusterbox.clusters import limit_rules as limits
from clusterbox.clusters import site_rules as site
from clusterbox.clusters.advice import advise
from clusterbox.clusters.composed import ComposedCluster
from clusterbox.clusters.findings import Finding, Level
from clusterbox.clusters.general_rules import Configuration, Found
from clusterbox.clusters.site_rules import SiteCluster
from clusterbox.site.yaml_file import render_path

# ERROR: the deployment would be refused or fail, or a secret is out. WARNING: it would work, and
# harm or cost more than meant. INFO: it would be hard to change later.
_GENERAL: dict[str, tuple[Level, Callable[[Configuration], Iterable[Found]]]] = {
    "PlainTextSecret": (Level.ERROR, general.find_secrets),
    "VolumeEncryption": (Level.WARNING, general.find_unencrypted_volumes),
    "InstanceMetadata": (Level.WARNING, general.find_open_metadata),
    "DirectoryServiceTls": (Level.WARNING, general.find_directory_without_tls),
    "StorageDeletion": (Level.WARNING, general.find_storage_deleted_with_cluster),
    "OverlappingMounts": (Level.WARNING, general.find_overlapping_mounts),
    "SshFromAnywhere": (Level.WARNING, general.find_ssh_from_anywhere),
    "BroadPermissions": (Level.WARNING, general.find_broad_permissions),
    "IdleNodes": (Level.WARNING, general.find_nodes_kept_idle),
    "QueueUpdateStrategy": (Level.INFO, general.find_default_update_strategy),
    "LogSettings": (Level.INFO, general.find_missing_log_settings),
    "GpuHealthCheck": (Level.INFO, general.find_gpu_checks_without_gpus),
}
_OF_SITE: dict[str, tuple[Level, Callable[[SiteCluster], Iterable[Found]]]] = {
    "PermissionsBoundary": (Level.ERROR, site.find_boundary_problems),
    "ResourcePrefix": (Level.ERROR, site.find_prefix_problems),
    "SiteRoles": (Level.ERROR, site.find_role_problems),
    "SiteImage": (Level.ERROR, site.find_image_problems),
    "ImageArchitecture": (Level.ERROR, site.find_login_architecture),
    "SiteRegion": (Level.ERROR, site.find_region),
    "SiteSubnet": (Level.ERROR, site.find_subnets),
    "AddressBudget": (Level.ERROR, site.find_address_problems),
    "InheritedImage": (Level.WARNING, site.find_inherited_images),
    "SiteSecurityGroup": (Level.WARNING, site.find_security_groups),
    "SiteFileSystem": (Level.WARNING, site.find_file_systems),
    "SiteKeyPair": (Level.WARNING, site.find_key_pair),
    "SiteBucket": (Level.WARNING, site.find_bucket),
    "PublicAddress": (Level.WARNING, site.find_public_addresses),
    "SiteTags": (Level.WARNING, site.find_missing_tags),
    "BudgetLimits": (Level.INFO, limits.find_limits_that_do_not_hold),
}


def rule_names() -> tuple[str, ...]:
    """Return the names of all own rules."""
    return (*_GENERAL, *_OF_SITE)


def find_rule_findings(cluster: ComposedCluster) -> list[Finding]:
    """Return what the own rules find in a cluster's configuration, in the order of the rules.

    The rules of a site apply only to a cluster that has one. A malformed configuration gives the
    findings that it allows, and no error: the schema tells what is malformed.
    """
    found = [
        _finding(cluster, name, level, item)
        for name, (level, find) in _GENERAL.items()
        for item in find(cluster.configuration)
    ]
    site_cluster = site.site_of(cluster)
    if site_cluster is not None:
        found += [
            _finding(cluster, name, level, item)
            for name, (level, find) in _OF_SITE.items()
            for item in find(site_cluster)
        ]
    return found


def _finding(cluster: ComposedCluster, rule: str, level: Level, found: Found) -> Finding:
    location, message = found
    return Finding(
        cluster=cluster.name,
        level=level,
        rule=rule,
        path=render_path(location),
        file=cluster.file.name,
        line=cluster.line_of(location),
        message=message,
        advice=advise(rule, message),
    )
