"""Grafana's JSON of a dashboard: its classic model, which is provisioned from files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clusterbox.errors import ClusterboxError
from clusterbox.files import write_whole
from clusterbox.observe.dashboards.model import Dashboard, Link, Panel, Query, Variable

FOLDER = Path("monitoring", "grafana", "dashboards")
# Of all our dashboards; the menu of links lists by it.
TAG = "clusterbox"
# The model that Grafana 11 writes; newer ones read it.
SCHEMA_VERSION = 39
_WIDTH = 24
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_TABLE_NOISE = ("Time", "__name__", "instance", "job")


def render(dashboard: Dashboard) -> dict[str, Any]:
    """Return the dashboard as Grafana imports and provisions it."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": [TAG],
        "schemaVersion": SCHEMA_VERSION,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "links": [
            {
                "type": "dashboards",
                "title": "Dashboards",
                "tags": [TAG],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
                "icon": "external link",
                "tooltip": "",
                "url": "",
            }
        ],
        "templating": {"list": [_datasource(), *map(_variable, dashboard.variables)]},
        "annotations": {"list": []},
        "panels": list(_panels(dashboard)),
    }


def render_file(dashboard: Dashboard) -> str:
    """Return the text of its file."""
    return json.dumps(render(dashboard), indent=2, ensure_ascii=False) + "\n"


def file_name(dashboard: Dashboard) -> str:
    """Return the name of its file."""
    return f"{dashboard.uid.removeprefix('clusterbox-')}.json"


def write(root: Path, dashboards: tuple[Dashboard, ...]) -> list[Path]:
    """Write all files; return those that changed, and those that were taken away."""
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    changed = stale(root, dashboards)
    texts = {folder / file_name(item): render_file(item) for item in dashboards}
    for path in changed:
        if path in texts:
            write_whole(path, texts[path])
        else:
            path.unlink()
    return changed


def check(root: Path, dashboards: tuple[Dashboard, ...]) -> None:
    """Raise ClusterboxError where a file is not what the modules make."""
    if found := stale(root, dashboards):
        names = ", ".join(str(path.relative_to(root)) for path in found)
        raise ClusterboxError(
            f"not what clusterbox/observe/dashboards makes: {names}; "
            "run `clusterbox observe dashboards` and commit what it writes"
        )


def stale(root: Path, dashboards: tuple[Dashboard, ...]) -> list[Path]:
    """Return the files that are missing, different or of no dashboard."""
    folder = root / FOLDER
    texts = {folder / file_name(item): render_file(item) for item in dashboards}
    others = set(folder.glob("*.json")) - set(texts)
    different = {
        path
        for path, text in texts.items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    }
    return sorted(others | different)


def _datasource() -> dict[str, Any]:
    return {
        "type": "datasource",
        "name": "datasource",
        "label": "Prometheus",
        "query": "prometheus",
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "refresh": 1,
        "regex": "",
        "options": [],
    }


def _variable(variable: Variable) -> dict[str, Any]:
    return {
        "type": "query",
        "name": variable.name,
        "label": variable.label,
        "datasource": _SOURCE,
        "query": {"query": variable.query, "refId": f"variable-{variable.name}"},
        # When the span changes: clusters and nodes come and go.
        "refresh": 2,
        "sort": 7,
        "multi": variable.is_multiple,
        "includeAll": True,
        # Also what has no such label, such as the queue of a head node.
        "allValue": ".*",
        "hide": 0,
        "regex": "",
        "options": [],
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }


def _panels(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    identity, top = 1, 0
    for row in dashboard.rows:
        yield {
            "id": identity,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": top, "w": _WIDTH, "h": 1},
            "panels": [],
        }
        identity, top = identity + 1, top + 1
        left = height = 0
        for panel in row.panels:
            if left + panel.width > _WIDTH:
                left, top, height = 0, top + height, 0
            place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            yield _panel(panel, identity, place)
            identity, left, height = identity + 1, left + panel.width, max(height, panel.height)
        top += height


def _panel(panel: Panel, identity: int, place: dict[str, int]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": identity,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": place,
        "targets": [_target(panel, query, index) for index, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _OPTIONS[panel.kind](panel),
    }
    if panel.kind == "table":
        found["transformations"] = _transformations(panel)
    return found


def _target(panel: Panel, query: Query, index: int) -> dict[str, Any]:
    at_once = panel.kind != "timeseries"
    return {
        "refId": chr(ord("A") + index),
        "datasource": _SOURCE,
        "expr": query.expr,
        "legendFormat": query.legend,
        "editorMode": "code",
        "format": "table" if panel.kind == "table" else "time_series",
        "instant": at_once,
        "range": not at_once,
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    is_plain = len(panel.thresholds) == 1
    found: dict[str, Any] = {
        "unit": panel.unit,
        # Lines have a colour each; the thresholds are lines across them.
        "color": {
            "mode": "palette-classic" if panel.kind == "timeseries" or is_plain else "thresholds"
        },
        "thresholds": {
            "mode": "absolute",
            "steps": [{"color": color, "value": value} for value, color in panel.thresholds],
        },
        "links": [_link(link, panel) for link in panel.links],
        "mappings": [],
        "min": 0,
    }
    if panel.greatest is not None:
        found["max"] = panel.greatest
    if panel.words:
        options = {
            str(value): {"text": text, "color": color, "index": index}
            for index, (value, text, color) in enumerate(panel.words)
        }
        found["mappings"] = [{"type": "value", "options": options}]
    if panel.kind == "timeseries":
        found["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 30 if panel.is_stacked else 5,
            "showPoints": "never",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.is_stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "off" if is_plain else "dashed"},
        }
    return found


def _link(link: Link, panel: Panel) -> dict[str, Any]:
    name = link.to.removeprefix("clusterbox-")
    where = "__data.fields" if panel.kind == "table" else "__field.labels"
    words = [f"var-{variable}=${{{where}.{label}}}" for variable, label in link.given]
    if not link.given:
        words = ["${cluster:queryparam}"]
    return {
        "title": f"Dashboard {name}",
        "url": f"/d/{link.to}?{'&'.join([*words, '${__url_time_range}'])}",
        "targetBlank": False,
    }


def _overrides(panel: Panel) -> list[dict[str, Any]]:
    return [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "unit", "value": unit}],
        }
        for name, unit in panel.units
    ]


def _transformations(panel: Panel) -> list[dict[str, Any]]:
    """Return what makes one table of several queries, with names that people read."""
    one = len(panel.queries) == 1
    values = {
        "Value" if one else f"Value #{chr(ord('A') + index)}": query.legend
        for index, query in enumerate(panel.queries)
    }
    return [
        {"id": "merge", "options": {}},
        {
            "id": "organize",
            "options": {
                "excludeByName": dict.fromkeys(_TABLE_NOISE, True),
                "indexByName": {},
                "renameByName": values,
            },
        },
    ]


def _lines(_: Panel) -> dict[str, Any]:
    return {
        "legend": {
            "showLegend": True,
            "displayMode": "list",
            "placement": "bottom",
            "calcs": [],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


_LAST = {"calcs": ["lastNotNull"], "fields": "", "values": False}


def _figures(_: Panel) -> dict[str, Any]:
    return {
        "reduceOptions": _LAST,
        "orientation": "auto",
        "colorMode": "value",
        "graphMode": "none",
        "justifyMode": "auto",
        "textMode": "auto",
        "wideLayout": True,
        "showPercentChange": False,
        "percentChangeColorMode": "standard",
    }


def _bars(_: Panel) -> dict[str, Any]:
    return {
        "reduceOptions": _LAST,
        "orientation": "horizontal",
        "displayMode": "basic",
        "valueMode": "color",
        "namePlacement": "left",
        "showUnfilled": True,
        "sizing": "auto",
        "minVizHeight": 16,
        "minVizWidth": 8,
        "maxVizHeight": 300,
        "legend": {
            "showLegend": False,
            "displayMode": "list",
            "placement": "bottom",
            "calcs": [],
        },
    }


def _rows(panel: Panel) -> dict[str, Any]:
    return {
        "frameIndex": 0,
        "showHeader": True,
        "cellHeight": "sm",
        "sortBy": [{"displayName": panel.queries[0].legend, "desc": True}],
    }


_OPTIONS = {"timeseries": _lines, "stat": _figures, "bargauge": _bars, "table": _rows}
