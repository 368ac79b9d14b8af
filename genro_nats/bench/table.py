"""Tables of text: aligned plainly, or drawn by Rich on a terminal where that is installed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

__all__ = ["aligned", "show"]

Row = Sequence[str]


def aligned(rows: Sequence[Row]) -> str:
    """Columns padded to their widest cell, the first to the left and others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def show(title: str, rows: Sequence[Row]) -> None:
    """Print a table; its first row is the header."""
    if sys.stdout.isatty() and importlib.util.find_spec("rich") is not None:
        _show_rich(title, rows)
    else:
        sys.stdout.write(f"\n{title}\n{aligned(rows)}\n")


def _show_rich(title: str, rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for number, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if number else "left")
    for row in rows[1:]:
        table.add_row(*row)
    Console().print(table)
