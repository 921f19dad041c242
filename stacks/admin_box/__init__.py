"""The admin box's user data: values, the idle-stop program and the set-up script, as one text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

#: What the set-up script reads; render_user_data takes exactly these.
VARIABLES = (
    "CLUSTERBOX_REGION",
    "CLUSTERBOX_ENVIRONMENT",
    "CLUSTERBOX_SOURCE_PARAMETER",
    "CLUSTERBOX_PCLUSTER_VERSION",
    "CLUSTERBOX_FILE_SYSTEMS",
    "CLUSTERBOX_IDLE_STOP_MINUTES",
)

#: EC2's limit on user data before base64. Source: EC2 User Guide, "Run commands at launch".
LIMIT_BYTES = 16_384

_HEAD = "#!/bin/bash\n# Comments stand in stacks/admin_box of the repository.\n"
_DELIMITER = "END_OF_IDLE_STOP"
_TOKEN = re.compile(r"\$\{Token\[[^\]]*\]\}")
# CloudFormation puts a value of unknown length in the place of a token. An id or the name of a
# parameter is shorter than this.
_TOKEN_ROOM_BYTES = 64


def render_user_data(values: Mapping[str, str]) -> str:
    """Return the user data of the admin box, for `ec2.UserData.custom`.

    `values` has exactly the keys of VARIABLES. A value may hold CDK tokens: they stay whole, inside
    single quotes, so what replaces them at deployment must not contain a single quote.

    Raises ValueError if a variable is missing or unknown, if a value cannot be one (a NUL), or if
    the text would exceed LIMIT_BYTES, where every token counts as 64 bytes at least.
    """
    _check_names(values)
    program = _read_shortened("idle_stop.py")
    setup = _read_shortened("setup.sh").removeprefix("#!/bin/bash\n")
    if _DELIMITER in program.splitlines():
        raise ValueError(f"idle_stop.py has a line {_DELIMITER}, which would end it early")
    exports = "".join(f"export {name}={shlex.quote(values[name])}\n" for name in VARIABLES)
    document = f"print_idle_stop() {{\n  cat <<'{_DELIMITER}'\n{program}{_DELIMITER}\n}}\n"
    text = _HEAD + exports + document + setup
    size = _measure(text)
    if size > LIMIT_BYTES:
        raise ValueError(
            f"user data has {size} bytes and EC2 takes {LIMIT_BYTES}: values {_measure(exports)}, "
            f"idle_stop.py {_measure(program)}, setup.sh {_measure(setup)}; shorten one of them"
        )
    return text


def _read_shortened(name: str) -> str:
    """Return a file beside this one without blank lines and lines of comment, as space is scarce.

    It stays text, where compressed it would be smaller: `cdk diff` shows what changes on the box.
    """
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    kept = (line for line in text.splitlines() if not re.match(r"\s*(# .*)?$", line))
    return "\n".join(kept) + "\n"


def _check_names(values: Mapping[str, str]) -> None:
    missing = [name for name in VARIABLES if name not in values]
    unknown = sorted(set(values) - set(VARIABLES))
    if missing or unknown:
        raise ValueError(
            f"user data takes {', '.join(VARIABLES)}; "
            f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}"
        )
    for name, value in values.items():
        if "\0" in value:
            raise ValueError(f"{name} has a NUL, which a shell cannot hold")


def _measure(text: str) -> int:
    """Return the size of a text in bytes, with room for what replaces its tokens."""
    tokens = [len(token.encode()) for token in _TOKEN.findall(text)]
    room = sum(max(0, _TOKEN_ROOM_BYTES - length) for length in tokens)
    return len(text.encode()) + room
