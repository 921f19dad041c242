from __future__ import annotations

import html
import re

import pytest
from markdown_it import MarkdownIt

from clusterbox.review import markup

HOSTILE = [
    "<script>alert(1)</script>",
    "</details>",
    "a | b",
    "`code` and ``more``",
    "@everyone look",
    "#12 and !34 and GH-5",
    "[click](https://example.com)",
    "![x](https://example.com/x.png)",
    "**bold** _slanted_ ~~gone~~",
    "line\nbreak\n\n# heading",
    "&lt;b&gt; &amp;",
    "back\\slash \\| \\`",
    "https://example.com/x",
    "`",
    "$x$",
]


def _render(markdown: str) -> str:
    return str(
        MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(markdown)
    )


@pytest.mark.parametrize("value", HOSTILE)
def test_text_is_shown_as_it_is_and_is_no_markup(value: str) -> None:
    page = _render(markup.text(value))
    shown = page.removeprefix("<p>").removesuffix("</p>\n")
    assert "<" not in shown
    for entity, character in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&amp;", "&")):
        shown = shown.replace(entity, character)
    assert shown.replace("\u200b", "") == " ".join(value.split())


@pytest.mark.parametrize("value", HOSTILE)
def test_text_mentions_nobody_and_links_nowhere(value: str) -> None:
    written = markup.text(value)
    assert "://" not in written
    # Platforms look for mentions and references in the rendered page, after entities are resolved.
    for shown in (_render(written), _render(markup.details(value, "body"))):
        assert not re.search(r"@everyone|#12|!34|GH-5", html.unescape(shown))


@pytest.mark.parametrize("value", HOSTILE)
def test_code_is_one_code_span(value: str) -> None:
    page = _render(f"before {markup.code(value)} after")
    assert page.startswith("<p>before <code>")
    assert page.endswith("</code> after</p>\n")
    assert page.count("<") == 4


@pytest.mark.parametrize("value", HOSTILE)
def test_a_cell_stays_in_its_column(value: str) -> None:
    for written in (markup.text(value), markup.code(value)):
        page = _render(markup.table(["a", "b"], [[written, "second"]]))
        assert page.count("<td>") == 2
        assert "<td>second</td>" in page


@pytest.mark.parametrize("value", [*HOSTILE, "```\nnot the end\n```", "~~~~"])
def test_a_block_ends_only_at_its_end(value: str) -> None:
    page = _render(markup.block(value, "diff"))
    assert page.startswith('<pre><code class="language-diff">')
    assert page.count("</code></pre>") == 1
    assert page.endswith("</code></pre>\n")


@pytest.mark.parametrize("value", HOSTILE)
def test_a_summary_is_plain_text(value: str) -> None:
    page = _render(markup.details(value, "body"))
    assert page.count("<summary>") == page.count("</details>") == 1
    assert "<script>" not in page


def test_characters_that_turn_the_order_of_others_are_shown_as_replaced() -> None:
    value = "a\u202eb\x1b[31mc\u2066d"
    for written in (markup.text(value), markup.code(value), markup.block(value)):
        assert not re.search("[\u202e\x1b\u2066]", written)


def test_numbers_in_a_column_are_aligned_to_the_right() -> None:
    assert (
        markup.table(["a", "b"], [["x", "1"]], right=(1,)) == "| a | b |\n| --- | ---: |\n| x | 1 |"
    )


@pytest.mark.parametrize(("count", "written"), [(0, "0 stacks"), (1, "1 stack"), (2, "2 stacks")])
def test_counts_have_their_noun(count: int, written: str) -> None:
    assert markup.plural(count, "stack") == written
