"""Lineage as people look at it: a tree in the terminal, or a drawing for Graphviz or Mermaid."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from salver.cli.tables import date

if TYPE_CHECKING:
    from salver.registry.lineage import Edge, Graph, Node

__all__ = ["dot", "mermaid", "tree"]

_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHAPES = {"version": "box", "endpoint": "ellipse", "predictions": "note"}


def tree(graph: Graph) -> list[str]:
    """The version with what it was made of, then what came of it, indented."""
    nodes = {node.id: node for node in graph.nodes}
    lines = [_label(nodes[graph.root]), "made of:"]
    lines += _branch(graph, nodes, graph.root, up=True) or ["  nothing is said"]
    lines.append("what came of it:")
    lines += _branch(graph, nodes, graph.root, up=False) or ["  nothing"]
    if graph.cut:
        lines.append(f"only the first {len(graph.nodes)} nodes are shown")
    return lines


def _branch(graph: Graph, nodes: dict[str, Node], root: str, *, up: bool) -> list[str]:
    """All paths from the root one way; what was shown before is only named again."""
    lines: list[str] = []
    shown = {root}
    beside: dict[str, list[Edge]] = {}
    for edge in graph.edges:
        beside.setdefault(edge.target if up else edge.source, []).append(edge)
    ahead = [(edge, 1) for edge in reversed(beside.get(root, []))]
    while ahead:
        edge, depth = ahead.pop()
        other = edge.source if up else edge.target
        again = other in shown and bool(beside.get(other))
        lines.append(f"{'  ' * depth}{_relation(edge)}  {_label(nodes[other])}{'  (as above)' if again else ''}")
        if other not in shown:
            shown.add(other)
            below = beside.get(other, [])
            # Predictions belong to one version; an endpoint has served several.
            below = [each for each in below if up or not _elsewhere(nodes, edge, each)]
            ahead += [(each, depth + 1) for each in reversed(below)]
    return lines


def _elsewhere(nodes: dict[str, Node], deployed: Edge, answered: Edge) -> bool:
    """Whether the predictions of an endpoint are those of another version than the one it was reached by."""
    if nodes[answered.target].kind != "predictions" or nodes[deployed.source].kind != "version":
        return False
    return not answered.target.endswith(f"/{nodes[deployed.source].label}")


def _relation(edge: Edge) -> str:
    if edge.since_s is None:
        return edge.relation
    until = "now" if edge.until_s is None else date(edge.until_s)
    return f"{edge.relation} {date(edge.since_s)} to {until}"


def _label(node: Node) -> str:
    told = node.label if node.kind in ("version", "predictions") else f"{node.kind}:{_short(node.label)}"
    called = [str(node.details[name]) for name in ("name", "uri") if node.details.get(name, node.label) != node.label]
    if called:
        told += f" ({', '.join(called)})"
    if not node.known:
        return f"{told}  (not in this registry)"
    if node.kind == "predictions" and "last_s" in node.details:
        return f"{told}, the last {date(float(node.details['last_s']))}"
    return f"{told}  {node.details['stage']}" if "stage" in node.details else told


def _short(name: str) -> str:
    """The beginning of a digest; `salver impact` takes it as well."""
    return name[:12] if _DIGEST.fullmatch(name) else name


def dot(graph: Graph) -> list[str]:
    """The graph in the language of Graphviz."""
    lines = ["digraph lineage {", "  rankdir=LR;"]
    for node in graph.nodes:
        style = ", penwidth=2" if node.id == graph.root else "" if node.known else ", style=dashed"
        shape = _SHAPES.get(node.kind, "cylinder")
        lines.append(f"  {_quoted(node.id)} [label={_quoted(_label(node))}, shape={shape}{style}];")
    lines += [
        f"  {_quoted(edge.source)} -> {_quoted(edge.target)} [label={_quoted(_relation(edge))}];"
        for edge in graph.edges
    ]
    return [*lines, "}"]


def _quoted(text: str) -> str:
    plain = "".join(char if char.isprintable() else " " for char in text)
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def mermaid(graph: Graph) -> list[str]:
    """The graph in the language of Mermaid."""
    numbers = {node.id: f"n{index}" for index, node in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    lines += [f'  {numbers[node.id]}["{_entities(_label(node))}"]' for node in graph.nodes]
    lines += [
        f'  {numbers[edge.source]} -- "{_entities(_relation(edge))}" --> {numbers[edge.target]}' for edge in graph.edges
    ]
    return lines


def _entities(text: str) -> str:
    """Text that Mermaid takes for nothing but text: letters, digits and a few signs as they are, the rest by number."""
    return "".join(char if char.isalnum() or char in " .,:@/-_()+" else f"#{ord(char)};" for char in text)
