"""The CDK CLI as a process: synth, bootstrap, deploy, diff, destroy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clusterbox.errors import ClusterboxError, InputError

_STACK_DONE = re.compile(r"✅\s+(?P<stack>\S+?)(?P<same> \(no changes\))?\s*$")
_STACK_FAILED = re.compile(r"❌\s+(?P<text>.*)")
# A line of the CLI's list "Failed resources".
_RESOURCE_FAILED = re.compile(
    r"^(?P<stack>\S+) \| +[\d:]+ [AP]M \| \w+_FAILED +\| (?P<type>\S+) +\| (?P<id>\S+) (?P<reason>.*)"
)
_DESTROYED = re.compile(r"✅\s+(?P<stack>\S+): destroyed")
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_TAIL_LINES = 30
# The app's exit code for bad input, which it has already explained on stderr.
_BAD_INPUT = 2


class CdkError(ClusterboxError):
    """The CDK CLI failed; the message ends with the last of its output."""


@dataclass(frozen=True)
class Assembly:
    """A synthesized app: its folder, and the stacks in the order of their dependencies."""

    folder: Path
    dependencies: Mapping[str, tuple[str, ...]]
    protected: frozenset[str]

    @property
    def stacks(self) -> tuple[str, ...]:
        """The names of the stacks, each after those it depends on."""
        return tuple(self.dependencies)

    def template(self, stack: str) -> dict[str, object]:
        """Return a stack's template."""
        text = (self.folder / f"{stack}.template.json").read_text(encoding="utf-8")
        template: dict[str, object] = json.loads(text)
        return template

    def with_dependencies(self, stacks: Sequence[str]) -> tuple[str, ...]:
        """Return the stacks and everything they need, in the order of dependencies."""
        needed: set[str] = set()
        waiting = list(stacks)
        while waiting:
            stack = waiting.pop()
            if stack not in needed:
                needed.add(stack)
                waiting += self.dependencies[stack]
        return tuple(stack for stack in self.stacks if stack in needed)


@dataclass(frozen=True)
class CdkCli:
    """The pinned CDK CLI of the repository, run against one target.

    `environment` is the whole environment of its processes: nothing of the caller's AWS settings
    gets through that the target does not name.
    """

    root: Path
    environment: Mapping[str, str]
    log: Path
    # Descriptors that its processes hold open too: a lock lasts as long as the work it guards.
    held: tuple[int, ...] = ()

    def bootstrap_template(self) -> str:
        """Return the bootstrap template that the CLI carries, as YAML."""
        return self._capture(["bootstrap", "--show-template"])

    def bootstrap(
        self, assembly: Assembly, target: str, template: Path, note: Callable[[str], None]
    ) -> None:
        """Bootstrap `aws://ACCOUNT/REGION` with a template; raises CdkError.

        The assembly is named so that the CLI does not run the app of cdk.json to find one.
        """
        words = ["bootstrap", target, "--app", str(assembly.folder), "--template", str(template)]
        self._run(words, note, _no_line)

    def deploy(
        self, assembly: Assembly, stacks: Sequence[str], note: Callable[[str], None]
    ) -> dict[str, bool]:
        """Deploy the named stacks; return for each whether it changed. Raises CdkError."""
        changed: dict[str, bool] = {}

        def read(line: str) -> str | None:
            if match := _STACK_DONE.search(line):
                stack = match["stack"]
                changed[stack] = match["same"] is None
                return f"{stack} {'deployed' if changed[stack] else 'unchanged'}"
            return None

        self._run(
            [
                *("deploy", *stacks, "--app", str(assembly.folder), "--exclusively"),
                *("--require-approval", "never", "--concurrency", "4", "--progress", "events"),
            ],
            note,
            read,
        )
        return changed

    def diff(self, assembly: Assembly) -> str:
        """Return the difference between the assembly and what is deployed, as text."""
        return self._capture(["diff", "--all", "--app", str(assembly.folder)])

    def destroy(
        self, assembly: Assembly, stacks: Sequence[str], note: Callable[[str], None]
    ) -> None:
        """Delete the named stacks; raises CdkError."""

        def read(line: str) -> str | None:
            match = _DESTROYED.search(line)
            return f"{match['stack']} removed" if match else None

        if stacks:
            self._run(
                ["destroy", *stacks, "--app", str(assembly.folder), "--exclusively", "--force"],
                note,
                read,
            )

    def _command(self, words: Sequence[str]) -> list[str]:
        cdk = self.root / "node_modules" / ".bin" / "cdk"
        if not cdk.exists():
            raise ClusterboxError(f"the CDK CLI is not installed ({cdk}); run `make setup`")
        return [str(cdk), *words, "--no-notices", "--no-color", "--ci"]

    def _capture(self, words: Sequence[str]) -> str:
        done = subprocess.run(
            self._command(words),
            cwd=self.root,
            env=dict(self.environment),
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise CdkError(
                f"`cdk {words[0]}` failed:\n{_tail((done.stdout + done.stderr).splitlines())}"
            )
        return done.stdout

    def _run(
        self,
        words: Sequence[str],
        note: Callable[[str], None],
        read: Callable[[str], str | None],
    ) -> None:
        """Run the CLI; log every line, and note those that `read` finds worth telling."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        lines: list[str] = []
        with (
            self.log.open("a", encoding="utf-8") as log,
            subprocess.Popen(
                self._command(words),
                cwd=self.root,
                env=dict(self.environment),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                encoding="utf-8",
                errors="replace",
                pass_fds=self.held,
            ) as process,
        ):
            assert process.stdout is not None  # noqa: S101 - a pipe was asked for
            for raw in process.stdout:
                line = _ANSI.sub("", raw.rstrip())
                log.write(line + "\n")
                lines.append(line)
                if (told := read(line)) is not None:
                    note(told)
        if process.returncode != 0:
            raise CdkError(
                f"`cdk {words[0]}` failed; all of its output is in {self.log}\n{_find_reasons(lines)}"
            )


def synthesize(
    root: Path,
    environment_name: str,
    outdir: Path,
    *,
    rules: bool = False,
    validation: bool = False,
    installed: Path | None = None,
    home: Path | None = None,
) -> Assembly:
    """Run the app in a process of its own and return its assembly.

    `rules` runs cdk-nag's packs, `validation` CDK's own CloudFormation rules. The process sees no
    AWS setting at all, which keeps synth hermetic, and writes nothing but the assembly. An exported
    commit has no libraries of its own: `installed` is then the repository whose Node is used.
    With `home` jsii and the CDK keep their caches there, and not in the user's home.
    Raises InputError with what the app says about bad files, and CdkError when it fails otherwise.
    """
    process_environment = {
        **without_aws(os.environ),
        "CDK_OUTDIR": str(outdir),
        "CDK_CONTEXT_JSON": json.dumps(
            {"env": environment_name, "rules": "true" if rules else "false"}
        ),
        "CDK_VALIDATION": "true" if validation else "false",
        "JSII_NODE": str(node(installed or root)),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if home is not None:
        process_environment["HOME"] = str(home)
    done = subprocess.run(
        [sys.executable, "app.py"],
        cwd=root,
        env=process_environment,
        capture_output=True,
        text=True,
    )
    if done.returncode == _BAD_INPUT:
        raise InputError(done.stderr.strip().removeprefix("clusterbox: "))
    if done.returncode != 0:
        raise CdkError(
            f"synth of {environment_name} failed:\n{_explain(done.stdout + done.stderr, outdir)}"
        )
    return read_assembly(outdir)


def read_assembly(folder: Path) -> Assembly:
    """Return the assembly in a folder that synth wrote."""
    artifacts = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["artifacts"]
    stacks = {
        name: artifact
        for name, artifact in artifacts.items()
        if artifact["type"] == "aws:cloudformation:stack"
    }
    dependencies: dict[str, tuple[str, ...]] = {}

    def visit(name: str) -> None:
        if name not in dependencies:
            needed = tuple(item for item in stacks[name].get("dependencies", []) if item in stacks)
            for item in needed:
                visit(item)
            dependencies[name] = needed

    for name in stacks:
        visit(name)
    protected = {
        name
        for name, artifact in stacks.items()
        if artifact["properties"].get("terminationProtection")
    }
    return Assembly(folder, dependencies, frozenset(protected))


def without_aws(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without any setting of AWS or of the CDK."""
    return {
        key: value
        for key, value in environment.items()
        if not key.startswith(("AWS_", "CDK_DEFAULT_"))
    }


def node(root: Path) -> Path:
    """Return the Node that the repository's own environment holds."""
    return root / ".venv" / "bin" / "node"


def _explain(output: str, outdir: Path) -> str:
    """Return the findings of a failed validation, or the last of the output."""
    report = outdir / "validation-report.json"
    if "ValidationFailed" not in output or not report.exists():
        return _tail(output.splitlines())
    findings = []
    for plugin in json.loads(report.read_text(encoding="utf-8"))["pluginReports"]:
        for violation in plugin["violations"]:
            if violation.get("severity") != "error":
                continue
            paths = ", ".join(item["constructPath"] for item in violation["violatingConstructs"])
            findings.append(f"  {violation['ruleName']} at {paths}: {violation['description']}")
    return "findings that nobody has explained:\n" + "\n".join(findings)


def _find_reasons(lines: Sequence[str]) -> str:
    """Return why resources failed; where the output does not say, its failed stacks or its end."""
    reasons: dict[str, None] = {}
    for line in lines:
        match = _RESOURCE_FAILED.search(line)
        # What was only stopped because something else failed explains nothing.
        if match and "cancelled" not in match["reason"]:
            shown = "".join(f"\n    {text}" for text in _split_reason(match["reason"]))
            reasons[f"  {match['stack']}: {match['id']} ({match['type']}){shown}"] = None
    failed = [f"  {match['text']}" for line in lines if (match := _STACK_FAILED.search(line))]
    return "\n".join([*reasons, *failed]) or _tail(lines)


def _split_reason(reason: str) -> list[str]:
    """Return a reason as lines: ParallelCluster's is JSON with one message a finding."""
    try:
        content = json.loads(reason[reason.index("{") :])
        findings = [item for value in content.values() if isinstance(value, list) for item in value]
        lines = [
            f"{item.get('level', 'ERROR').lower()} {item.get('type', item.get('parameter', ''))}: "
            f"{item['message']}"
            for item in findings
        ]
    except (ValueError, KeyError, AttributeError, TypeError):
        return [reason]
    told = list(dict.fromkeys(lines)) or [content.get("message")]
    return [str(line) for line in told if line] or [reason]


def _tail(lines: Sequence[str]) -> str:
    return "\n".join(lines[-_TAIL_LINES:])


def _no_line(_line: str) -> None:
    return None
