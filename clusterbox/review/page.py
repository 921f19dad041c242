"""Write a review as one HTML page that needs nothing else."""

from __future__ import annotations

import html

from markdown_it import MarkdownIt

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border: 1px solid #8886; padding: .3rem .6rem; text-align: left; vertical-align: top; }
code { font: 0.9em ui-monospace, monospace; background: #8882; border-radius: .2rem; padding: 0 .2em; }
pre { background: #8882; padding: .8rem; overflow-x: auto; }
pre code { background: none; padding: 0; }
summary { cursor: pointer; margin: .4rem 0; }
"""


def render_page(title: str, markdown: str) -> str:
    """Return the Markdown of a comment as an HTML page.

    The comment's own `<details>` are HTML; whatever came from the change is escaped already.
    """
    body = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}</body>\n</html>\n"
    )
