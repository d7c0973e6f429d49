"""The rows of a table that are subsets of streams, for data sets that do not have three. Nothing here imports torch.

Where there are three, they stand in the places of RGB, flow and audio, and the rows are those of the table's file.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

from hydra.core.config_store import ConfigStore

from pamfn.config.schema import Subsets, Table
from pamfn.errors import InputError

PLACES = ("RGB", "Flow", "Audio")


def of_streams(table: Table, streams: Mapping[str, Sequence[str]], asked: Collection[str]) -> Table:
    """The table with rows for the streams of its columns {column: streams}; asked: rows that are chosen, if any are.

    Raises:
        InputError: when the columns need different rows, or a row is chosen that these streams do not have.
    """
    if all(len(names) == len(PLACES) for names in streams.values()):
        return table
    own, *others = map(tuple, streams.values())
    if any(other != own for other in others):
        told = "; ".join(f"{column}: {', '.join(names)}" for column, names in streams.items())
        raise InputError(
            f"{table.name}: its rows are the data set's streams, and these columns have different ones ({told}). "
            f"Choose one of them, e.g. {table.column}={next(iter(streams))}."
        )
    rows = rows_of(table, own)
    strangers = [value for value in table.rows if value in asked and value not in rows]
    if strangers:
        raise InputError(
            f"{table.row}={','.join(strangers)}: for data sets of three streams, and this one has {', '.join(own)}. "
            f"Choose a row of its own, e.g. {table.row}={next(iter(rows))}, or leave the word out for all of them."
        )
    return table.model_copy(update={"rows": rows})


def rows_of(table: Table, streams: Sequence[str]) -> dict[str, str]:
    """{ablation: name}: those that the table's file has, with rows for these streams where it has some by place."""
    group = table.row.lstrip("+")
    made = {
        ablation(group, rows, chosen, streams): rows.name.format("+".join(chosen))
        for rows in table.streams
        for chosen in subsets(streams, *rows.sizes)
    }
    found: dict[str, str] = {}
    for value, name in table.rows.items():
        found |= made if by_place(name) else {value: name}
    return found


def subsets(streams: Sequence[str], *sizes: int) -> list[tuple[str, ...]]:
    """All subsets from one size to another, small ones first; -1 is the size of the whole, -2 one less."""
    fewest, most = (size if size > 0 else len(streams) + 1 + size for size in sizes)
    return [chosen for size in range(fewest, most + 1) for chosen in combinations(streams, size)]


def ablation(group: str, rows: Subsets, chosen: Sequence[str], streams: Sequence[str]) -> str:
    """What a row is chosen by: for all streams the ablation's file, else one that Hydra is told of here."""
    if len(chosen) == len(streams):
        return rows.ablation
    name = f"{rows.ablation}_{'on' if rows.setting == 'modalities' else 'zeroed_to'}_{'+'.join(chosen)}"
    node = {"defaults": [rows.ablation, "_self_"], rows.setting: list(chosen)}
    ConfigStore.instance().store(group=group, name=name, node=node, package="_global_")
    return name


def by_place(name: str) -> bool:
    """Whether a row is called by one of three streams."""
    return re.search(rf"\b({'|'.join(PLACES)})\b", name) is not None
