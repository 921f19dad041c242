"""What every Python Lambda function of the embedded account runs before its own code.

ParallelCluster gives each cluster a function that cleans up behind it, and that function is run
as it is. Two things about it do not fit an account in which nothing is far away and nothing
boots; they are changed here, around it. The text of this file is put in front of ministack's
worker script: standard library only.
"""

from __future__ import annotations

import http.client
import os
import time

CLEANUP_FUNCTION_PREFIX = "pcluster-CleanupResources-"
# It sleeps for 45 seconds in all until instances and placement groups are surely gone. Here they
# are gone when the call returns.
LONGEST_CLEANUP_SLEEP_SECONDS = 0.05

_sleep = time.sleep
_connect_with_tls = http.client.HTTPSConnection.connect


def connect(connection: http.client.HTTPSConnection) -> None:
    """Connect without TLS to the account's own port, and with TLS to everything else.

    The account has no certificate, and the helper with which ParallelCluster's functions answer
    CloudFormation speaks only HTTPS, whatever the scheme of the address that it is given.
    """
    own_port = connection.port == int(os.environ.get("GATEWAY_PORT", "0"))
    if own_port and connection.host in ("localhost", "127.0.0.1"):
        http.client.HTTPConnection.connect(connection)
    else:
        _connect_with_tls(connection)


def short_sleep(seconds: float) -> None:
    """Sleep, but not for long."""
    _sleep(min(seconds, LONGEST_CLEANUP_SLEEP_SECONDS))


def prepare() -> None:
    """Put both changes in place in this worker process."""
    http.client.HTTPSConnection.connect = connect  # type: ignore[assignment,method-assign]
    if os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "").startswith(CLEANUP_FUNCTION_PREFIX):
        time.sleep = short_sleep  # type: ignore[assignment]


if __name__ == "__main__":
    prepare()
