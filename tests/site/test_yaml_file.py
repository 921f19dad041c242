from __future__ import annotations

from pathlib import Path

import pytest

from clusterbox.errors import InputError, ProblemsError
from clusterbox.site.yaml_file import parse_yaml, read_yaml, render_path, value_at


def message(text: str) -> str:
    """Return the message of the error that reading the text raises."""
    with pytest.raises(InputError) as caught:
        parse_yaml(text, name="a.yaml")
    return str(caught.value)


def test_values_are_read_as_yaml_has_them() -> None:
    assert parse_yaml("a: [1, yes, text]\nb: {c: null}\n", name="a.yaml").data == {
        "a": [1, True, "text"],
        "b": {"c": None},
    }


def test_each_value_knows_its_line() -> None:
    file = parse_yaml("# comment\na:\n  - b: 1\n    c: 2\n\nd: {e: 3}\n", name="a.yaml")
    assert file.lines == {
        (): 2,
        ("a",): 2,
        ("a", 0): 3,
        ("a", 0, "b"): 3,
        ("a", 0, "c"): 4,
        ("d",): 6,
        ("d", "e"): 6,
    }


def test_a_value_that_is_not_there_has_the_line_of_what_would_hold_it() -> None:
    file = parse_yaml("a: 1\nb:\n  c: 1\n", name="a.yaml")
    assert file.line_of(("b", "x", "y")) == 2


def test_a_problem_names_file_line_path_and_value() -> None:
    file = parse_yaml("a: 1\nb:\n  - c: 1\n", name="a.yaml")
    problem = file.problem(("b", 0, "c"), "must be text", 1)
    assert str(problem) == "a.yaml:3: b[0].c: must be text (found: 1)"


def test_a_long_value_is_cut_in_a_problem() -> None:
    problem = parse_yaml("a: 1\n", name="a.yaml").problem(("a",), "must be short", "x" * 100)
    assert problem.value is not None
    assert len(problem.value) == 80
    assert problem.value.endswith("x…")


def test_a_key_that_stands_twice_is_reported_with_both_lines() -> None:
    with pytest.raises(ProblemsError) as caught:
        parse_yaml("a: 1\nb:\n  - c: 1\n    c: 2\na: 3\n", name="a.yaml")
    assert [str(problem) for problem in caught.value.problems] == [
        "a.yaml:4: b[0].c: must stand only once; first on line 3",
        "a.yaml:5: a: must stand only once; first on line 1",
    ]


def test_a_merged_key_may_be_given_again() -> None:
    text = "base: &base {a: 1, b: 1}\nmore: {<<: *base, b: 2}\n"
    assert parse_yaml(text, name="a.yaml").data["more"] == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    "text", ["", "# only a comment\n", "null\n", "- a\n- b\n", "text\n", "7\n"]
)
def test_a_file_must_be_a_mapping(text: str) -> None:
    assert message(text) == "a.yaml: must be a mapping of keys to values"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(
            "a: 1\nb: [\n",
            "a.yaml:3: is not one YAML document: while parsing a flow node, "
            "expected the node content, but found '<stream end>'",
            id="an open bracket",
        ),
        pytest.param(
            "a:\n\t- 1\n",
            "a.yaml:2: is not one YAML document: while scanning for the next token, "
            "found character '\\t' that cannot start any token",
            id="a tab",
        ),
        pytest.param(
            "a: 1\n---\na: 2\n",
            "a.yaml:2: is not one YAML document: expected a single document in the stream, "
            "but found another document",
            id="two documents",
        ),
        pytest.param(
            "a: 1\nb: *x\n",
            "a.yaml:2: is not one YAML document: found undefined alias 'x'",
            id="an alias of nothing",
        ),
        pytest.param(
            "a: 1\n? [b]\n: 1\n",
            "a.yaml:2: is not one YAML document: while constructing a mapping, "
            "found unhashable key",
            id="a list as a key",
        ),
        pytest.param(
            "a: 1\nb: !!python/name:os.system\n",
            "a.yaml:2: is not one YAML document: could not determine a constructor for the tag "
            "'tag:yaml.org,2002:python/name:os.system'",
            id="a Python object",
        ),
        pytest.param(
            "a: 1\nb: 2024-13-01\n",
            "a.yaml:2: is not one YAML document: "
            "'2024-13-01' cannot stand here as a YAML timestamp",
            id="a date that does not exist",
        ),
        pytest.param(
            "a: 1\nb: !!int seven\n",
            "a.yaml:2: is not one YAML document: 'seven' cannot stand here as a YAML int",
            id="a number in words",
        ),
        pytest.param(
            "a: 1\nb: !!bool maybe\n",
            "a.yaml:2: is not one YAML document: 'maybe' cannot stand here as a YAML bool",
            id="a boolean in words",
        ),
        pytest.param(
            "a: 1\nb: !!set {c, d}\n",
            "a.yaml:2: is not one YAML document: this cannot stand here as a YAML set",
            id="a set",
        ),
        pytest.param(
            'a: 1\nb: "\\ud800"\n',
            "a.yaml:2: is not one YAML document: '\\ud800' cannot stand here as a YAML str",
            id="half of a surrogate pair",
        ),
        pytest.param(
            "a: 1\nb: \x07\n",
            "a.yaml:2: must be text without control characters (found: '\\x07')",
            id="a control character",
        ),
        pytest.param(
            "a: &a [*a]\n",
            "a.yaml: is nested too deeply, or an alias contains itself",
            id="an alias that contains itself",
        ),
        pytest.param(
            "a: " + "[" * 1500 + "]" * 1500,
            "a.yaml: is nested too deeply, or an alias contains itself",
            id="fifteen hundred lists in each other",
        ),
    ],
)
def test_what_is_not_plain_yaml_is_refused_with_its_line(text: str, said: str) -> None:
    assert message(text) == said


def test_aliases_that_multiply_without_end_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert message("\n".join(lines)) == (
        "a.yaml:1: is not one YAML document: holds more than 100000 values"
    )


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^a\.yaml: there is no such file$"):
        read_yaml(tmp_path / "a.yaml", name="a.yaml")


def test_a_folder_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^a\.yaml: cannot be read: Is a directory$"):
        read_yaml(tmp_path, name="a.yaml")


def test_bytes_that_are_not_text_are_refused_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(InputError, match=r"^a\.yaml:2: must be UTF-8 text$"):
        read_yaml(tmp_path / "a.yaml", name="a.yaml")


def test_a_file_is_called_by_its_path_where_it_has_no_name(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1\n", encoding="utf-8")
    assert read_yaml(tmp_path / "a.yaml").name == str(tmp_path / "a.yaml")


def test_a_location_is_rendered_with_dots_and_brackets() -> None:
    assert render_path(("clusters", 0, "name")) == "clusters[0].name"


@pytest.mark.parametrize(
    ("location", "value"),
    [
        (("a", 1, "b"), 2),
        (("a", 7), None),
        (("a", "b"), None),
        (("x", "y"), None),
        (("a", 1, "b", "c"), None),
    ],
)
def test_a_value_is_found_at_its_location_or_is_none(
    location: tuple[str | int, ...], value: object
) -> None:
    assert value_at({"a": [1, {"b": 2}]}, location) == value
