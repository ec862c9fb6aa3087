"""Draws a compiled pipeline as SVG, for the README."""

from pathlib import Path

import networkx as nx
from jinja2 import Environment, FileSystemLoader

from pipelines.graph import read_graph

_COLUMN, _ROW, _WIDTH, _HEIGHT = 176, 74, 152, 46


def draw(compiled: str) -> str:
    """Draws the tasks from left to right: what waits for nothing first, what can run side by side in one column."""
    graph = read_graph(compiled)
    body = [task for task in graph.tasks if not task.is_exit]
    waits = nx.DiGraph()
    waits.add_nodes_from(task.name for task in body)
    waits.add_edges_from((before, task.name) for task in body for before in task.after)
    columns = list(nx.topological_generations(waits))
    rows = max(map(len, columns))
    place: dict[str, tuple[float, float]] = {}
    for index, column in enumerate(columns):
        # By the height of what they wait for (the barycentre method of Sugiyama et al. 1981): fewer arrows cross.
        heights = {name: [place[before][1] for before in waits.predecessors(name)] for name in column}
        ordered = sorted(column, key=lambda name: (sum(heights[name]) / max(1, len(heights[name])), name))
        for row, name in enumerate(ordered):
            place[name] = (index * _COLUMN, (row + (rows - len(column)) / 2) * _ROW)
    template = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    ).get_template("picture.svg.jinja")
    return template.render(
        boxes=[(*place[task.name], task.label, task.image.rpartition("/")[2].partition(":")[0]) for task in body],
        arrows=sorted((*place[a], *place[b]) for a, b in waits.edges),
        exits=[task.label for task in graph.tasks if task.is_exit],
        width=len(columns) * _COLUMN,
        height=rows * _ROW,
        box=(_WIDTH, _HEIGHT),
    )
