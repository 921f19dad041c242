"""`clusterbox observe exporter site` and `clusterbox observe config`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

LEAST_REFRESH_SECONDS = 60.0


def add_site(kinds: argparse._SubParsersAction[argparse.ArgumentParser], command: str) -> None:
    """Add the exporter of what people forget."""
    from clusterbox.cli.observe import add_serving

    site = kinds.add_parser("site", help="age of images and backups, certificates, EFS's credits")
    add_serving(site, "127.0.0.1:9344")
    site.add_argument("--environment", required=True, help="environment whose account is read")
    site.add_argument(
        "--target",
        choices=("embedded", "aws"),
        default="embedded",
        help="embedded: what runs on this machine (default); aws: AWS",
    )
    site.add_argument(
        "--refresh-seconds",
        type=float,
        default=300.0,
        help="AWS is asked so often (default: 300)",
    )
    site.epilog = f"example: clusterbox {command} exporter site --environment ws-dev --once"
    site.set_defaults(run=_site)


def add_config(actions: argparse._SubParsersAction[argparse.ArgumentParser], command: str) -> None:
    """Add the rendering of Prometheus's configuration."""
    config = actions.add_parser(
        "config", help="write the configuration of Prometheus, Alertmanager and Grafana"
    )
    config.add_argument("environment", help="environment with a section monitoring")
    config.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="where to")
    config.add_argument("--topic", required=True, metavar="ARN", help="SNS topic of the alerts")
    config.add_argument("--home", default=None, help="folder that the files will be read from")
    config.add_argument(
        "--remote-write", metavar="URL", help="workspace of Amazon Managed Service for Prometheus"
    )
    config.add_argument("--mail-user", help="user that signs in at the mail server")
    config.epilog = (
        f"example: clusterbox {command} config ws-dev --output /etc/clusterbox-monitoring "
        "--topic arn:aws:sns:us-west-2:427491229895:alerts"
    )
    config.set_defaults(run=_config)


def _site(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.aws import Account, sign_in
    from clusterbox.cli.observe import run_exporter
    from clusterbox.errors import InputError
    from clusterbox.observe.site_collector import SiteSources, make_collector
    from clusterbox.site.load import Repository

    if options.refresh_seconds < LEAST_REFRESH_SECONDS:
        raise InputError(f"--refresh-seconds must be {LEAST_REFRESH_SECONDS:g} at least")
    repository = Repository(root)
    environment = repository.load_environment(options.environment)
    images = {name: image.ami for name, image in repository.load_images(environment).items()}

    def open_account() -> Account:
        if options.target == "aws":
            return sign_in(environment.region).open(environment.region)
        from clusterbox.deployment.targets import find_embedded

        target = find_embedded(root, environment)
        if target is None:
            raise InputError(f"no embedded account of {environment.name} runs")
        return Account(environment.account, environment.region, target.client)

    def report(text: str) -> None:
        sys.stderr.write(f"clusterbox: {text}\n")
        sys.stderr.flush()

    collector, backgrounds = make_collector(
        SiteSources(environment.name, open_account, images),
        refresh_seconds=options.refresh_seconds,
        report=report,
    )
    for background in backgrounds:
        if options.once:
            background.refresh()
        else:
            background.start()
    return run_exporter(options, collector)


def _config(options: argparse.Namespace, root: Path) -> int:
    from clusterbox.observe.config import Places, write_configuration
    from clusterbox.site.load import Repository

    environment = Repository(root).load_environment(options.environment)
    home = options.home or str(options.output.resolve())
    places = Places(
        topic=options.topic,
        home=home,
        remote_write=options.remote_write,
        mail_user=options.mail_user,
        mail_password_file=f"{home}/secrets/mail-password",
    )
    write_configuration(root, options.output, environment, places)
    return 0
