"""A stand-in for the AWS CLI on machines of the embedded account, on top of boto3.

`aws s3 cp|sync|ls|rm` for single objects and prefixes, and `aws SERVICE OPERATION --option value`
for every operation of the API, with `--query`, and `--output json|text`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import jmespath  # type: ignore[import-untyped]
from botocore import xform_name

_GLOBAL = ("--region", "--output", "--query", "--endpoint-url", "--profile", "--color")
_USAGE = 252


def main(words: Sequence[str]) -> int:
    """Run one command; return the exit code that the AWS CLI would."""
    rest, settings = _settings(list(words))
    if len(rest) < 2:
        sys.stderr.write("aws: the stand-in knows `aws s3 ...` and `aws SERVICE OPERATION ...`\n")
        return _USAGE
    try:
        if rest[0] == "s3":
            return _s3(rest[1], rest[2:], settings)
        return _operation(rest[0], rest[1], rest[2:], settings)
    except botocore.exceptions.ClientError as error:
        sys.stderr.write(f"\n{error}\n")
        return 254
    except (botocore.exceptions.BotoCoreError, ValueError, OSError) as error:
        sys.stderr.write(f"\n{error}\n")
        return 255


def _settings(words: list[str]) -> tuple[list[str], dict[str, str]]:
    rest: list[str] = []
    settings: dict[str, str] = {}
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if name in _GLOBAL:
            settings[name.lstrip("-")] = value if equals else words.pop(0)
        else:
            rest.append(word)
    return rest, settings


def _client(service: str, settings: dict[str, str]) -> Any:
    make: Any = boto3.client
    region = {"region_name": settings["region"]} if "region" in settings else {}
    return make(service, **region)


def _operation(service: str, name: str, words: list[str], settings: dict[str, str]) -> int:
    client = _client("s3" if service == "s3api" else service, settings)
    names = {xform_name(found, "-"): found for found in client.meta.service_model.operation_names}
    if name not in names:
        raise ValueError(f"aws: {service} has no operation {name}")
    model = client.meta.service_model.operation_model(names[name])
    members = model.input_shape.members if model.input_shape else {}
    asked = _arguments(words, {xform_name(m, "-"): (m, shape) for m, shape in members.items()})
    answer = getattr(client, xform_name(names[name]))(**asked)
    answer.pop("ResponseMetadata", None)
    for key, value in list(answer.items()):
        if hasattr(value, "read"):  # get-object: the last word is the file
            Path(words[-1]).write_bytes(value.read())
            del answer[key]
    if "query" in settings:
        answer = jmespath.search(settings["query"], answer)
    _print(answer, settings.get("output", "json"))
    return 0


def _arguments(words: list[str], members: dict[str, tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    position = 0
    while position < len(words):
        word = words[position]
        position += 1
        if not word.startswith("--"):
            continue
        option = word[2:]
        truth = not option.startswith("no-")
        name, shape = members.get(option) or members.get(option.removeprefix("no-")) or ("", None)
        if shape is None:
            raise ValueError(f"aws: unknown option {word}")
        values = []
        while position < len(words) and not words[position].startswith("--"):
            values.append(words[position])
            position += 1
            if shape.type_name != "list":
                break
        found[name] = _value(shape, values, truth)
    return found


def _value(shape: Any, values: list[str], truth: bool) -> Any:
    kind = shape.type_name
    if kind == "boolean":
        return values[0] == "true" if values else truth
    if kind == "list":
        if len(values) == 1 and values[0].startswith("["):
            return json.loads(values[0])
        return [_value(shape.member, [value], truth) for value in values]
    if kind in ("structure", "map"):
        if values[0].startswith("{"):
            return json.loads(values[0])
        return _shorthand(shape, values[0])
    if kind in ("integer", "long"):
        return int(values[0])
    if kind == "blob":
        return Path(values[0].removeprefix("fileb://")).read_bytes()
    text = values[0]
    return Path(text[7:]).read_text(encoding="utf-8") if text.startswith("file://") else text


def _shorthand(shape: Any, text: str) -> dict[str, Any]:
    """Return `Key=a,Values=b,c` as a mapping."""
    found: dict[str, Any] = {}
    last = ""
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if equals:
            last = name
        else:
            value = part
        member = shape.members.get(last) if shape.type_name == "structure" else None
        if member is not None and member.type_name == "list":
            found.setdefault(last, []).append(value)
        elif member is not None and member.type_name in ("integer", "boolean"):
            found[last] = _value(member, [value], True)
        else:
            found[last] = value
    return found


def _print(answer: Any, form: str) -> None:
    if form == "text":
        for line in _text_lines(answer):
            sys.stdout.write(line + "\n")
    elif answer not in (None, {}):
        sys.stdout.write(json.dumps(answer, indent=4, default=str) + "\n")


def _text_lines(answer: Any) -> Iterator[str]:
    if isinstance(answer, list):
        if all(not isinstance(item, (list, dict)) for item in answer):
            yield "\t".join(_text(item) for item in answer)
        else:
            for item in answer:
                yield from _text_lines(item)
    elif isinstance(answer, dict):
        yield "\t".join(_text(answer[key]) for key in sorted(answer))
    else:
        yield _text(answer)


def _text(value: Any) -> str:
    return "None" if value is None else str(value)


def _s3(action: str, words: list[str], settings: dict[str, str]) -> int:
    client = _client("s3", settings)
    options = {word for word in words if word.startswith("--")}
    places = [word for word in words if not word.startswith("--")]
    whole = "--recursive" in options or action == "sync"
    if action in ("cp", "sync", "mv") and len(places) == 2:
        done = _copy(client, *places, whole=whole)
    elif action == "ls":
        done = [f"{key}" for key in _keys(client, places[0])]
    elif action == "rm" and len(places) == 1:
        bucket, prefix = _bucket_and_key(places[0])
        done = _keys(client, places[0]) if whole else [prefix]
        for key in done:
            client.delete_object(Bucket=bucket, Key=key)
    else:
        raise ValueError(f"aws s3: the stand-in does not know {action} {words}")
    if not options & {"--only-show-errors", "--quiet"}:
        sys.stdout.write("".join(f"{line}\n" for line in done))
    return 0


def _bucket_and_key(place: str) -> tuple[str, str]:
    bucket, _, key = place.removeprefix("s3://").partition("/")
    return bucket, key


def _keys(client: Any, place: str) -> list[str]:
    bucket, prefix = _bucket_and_key(place)
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [found["Key"] for page in pages for found in page.get("Contents", [])]


def _copy(client: Any, source: str, target: str, *, whole: bool) -> list[str]:
    if source.startswith("s3://") and not target.startswith("s3://"):
        return _download(client, source, target, whole=whole)
    if target.startswith("s3://") and not source.startswith("s3://"):
        return _upload(client, source, target, whole=whole)
    raise ValueError("aws s3: the stand-in copies between a bucket and files only")


def _download(client: Any, source: str, target: str, *, whole: bool) -> list[str]:
    bucket, key = _bucket_and_key(source)
    if not whole:
        body = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        if target == "-":
            sys.stdout.buffer.write(body)
            return []
        path = Path(target)
        if path.is_dir() or target.endswith("/"):
            path = path / key.rpartition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        return [f"download: {source} to {path}"]
    prefix = key if not key or key.endswith("/") else f"{key}/"
    done = []
    for found in _keys(client, f"s3://{bucket}/{prefix}"):
        path = Path(target) / found.removeprefix(prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(client.get_object(Bucket=bucket, Key=found)["Body"].read())
        done.append(f"download: s3://{bucket}/{found} to {path}")
    return done


def _upload(client: Any, source: str, target: str, *, whole: bool) -> list[str]:
    bucket, key = _bucket_and_key(target)
    if not whole:
        body = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        name = f"{key}{Path(source).name}" if not key or key.endswith("/") else key
        client.put_object(Bucket=bucket, Key=name, Body=body)
        return [f"upload: {source} to s3://{bucket}/{name}"]
    done = []
    for path in sorted(p for p in Path(source).rglob("*") if p.is_file()):
        name = "/".join(part for part in (key.rstrip("/"), str(path.relative_to(source))) if part)
        client.put_object(Bucket=bucket, Key=name, Body=path.read_bytes())
        done.append(f"upload: {path} to s3://{bucket}/{name}")
    return done


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
