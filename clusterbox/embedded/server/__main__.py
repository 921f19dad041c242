"""Run one embedded AWS account: ``python -m clusterbox.embedded.server --port 4566``."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from collections.abc import Sequence

LOOPBACK = "127.0.0.1"
# A path that no one creates: ministack then neither imports the Docker client nor looks for one.
NO_DOCKER = "unix:///nonexistent/clusterbox-uses-no-docker.sock"


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Return the checked command line; argparse ends the process with 2 on a bad one."""
    parser = argparse.ArgumentParser(
        prog="python -m clusterbox.embedded.server",
        description="Run an embedded AWS account on the loopback address until it is ended.",
        epilog="example: python -m clusterbox.embedded.server --port 4566 "
        "--account 427491229895 --region us-west-2",
    )
    parser.add_argument("--port", type=_port, required=True, help="TCP port on 127.0.0.1")
    parser.add_argument("--account", type=_account, default="427491229895", help="12 digits")
    parser.add_argument("--region", default="us-west-2", help="region of unsigned requests")
    return parser.parse_args(words)


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; use 1 to 65535")
    return int(text)


def _account(text: str) -> str:
    if not re.fullmatch(r"\d{12}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an account id; use 12 digits")
    return text


def settings(*, port: int, account: str, region: str) -> dict[str, str]:
    """Return the environment ministack has to find when it is imported."""
    return {
        "BIND_HOST": LOOPBACK,
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": "localhost",
        "MINISTACK_ACCOUNT_ID": account,
        "MINISTACK_REGION": region,
        "DOCKER_HOST": NO_DOCKER,
        "LAMBDA_EXECUTOR": "local",
        # Listeners of services a site does not use; their fixed ports would also collide as
        # soon as two accounts run side by side.
        "SFTP_ENABLED": "0",
        "IOT_MTLS_ENABLED": "0",
        "PERSIST_STATE": "0",
        "S3_PERSIST": "0",
        "USE_SSL": "0",
        # IAM is kept but not enforced; the seed writes no credentials.
        "AUTH": "false",
        # Lambda functions inherit this environment: they must reach this account and no other.
        "AWS_ENDPOINT_URL": f"http://localhost:{port}",
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


# Settings of the calling shell that would send a Lambda function's calls to a real account.
_REAL_CREDENTIALS = (
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
)


def main(words: Sequence[str] | None = None) -> int:
    """Serve until a TERM or INT signal; return the exit code."""
    arguments = parse_arguments(sys.argv[1:] if words is None else words)
    for name in _REAL_CREDENTIALS:
        os.environ.pop(name, None)
    for name in [n for n in os.environ if n.startswith("AWS_ENDPOINT_URL_")]:
        os.environ.pop(name)
    os.environ.update(
        settings(port=arguments.port, account=arguments.account, region=arguments.region)
    )
    # After the environment is set: see this package's docstring.
    from clusterbox.embedded.server.gateway import serve

    asyncio.run(serve(port=arguments.port, account=arguments.account, region=arguments.region))
    return 0


if __name__ == "__main__":
    sys.exit(main())
