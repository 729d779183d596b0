"""Where losses do not add up: the extra loss of two groups together, measured for those that matter most."""

from __future__ import annotations

import itertools
from dataclasses import replace

from qcompile.assign.table import FLOAT, Pair, SensitivityTable
from qcompile.mixed.trials import Formats, Trial, Trials, by_layer

GROUPS = 8  # whose pairs are measured: those that lose most alone
ADDITIVE = 1.5  # a measured loss up to so many times the predicted one, or one by it, counts as their sum
_TOO_SMALL = 1e-9


def is_additive(trial: Trial) -> bool:
    """Whether the loss that was measured is near the sum that was predicted."""
    if max(trial.loss, trial.predicted.loss) < _TOO_SMALL:
        return True
    return trial.predicted.loss / ADDITIVE <= trial.loss <= trial.predicted.loss * ADDITIVE


def with_pairs(table: SensitivityTable, formats: Formats, trials: Trials) -> SensitivityTable:
    """``table`` with the extra losses of pairs among the groups that lose most in this configuration.

    What is known of a pair stays; one that turns out to add up is kept as well, so that it is not measured again.
    """
    alone = {group.name: group.entries[formats[group.name]].alone for group in table.groups}
    chosen = [name for name in sorted(alone, key=lambda name: -alone[name]) if formats[name] != FLOAT][:GROUPS]
    order = {group.name: i for i, group in enumerate(table.groups)}
    known = {(pair.groups, pair.formats) for pair in table.pairs}
    wanted = []
    for one, other in itertools.combinations(sorted(chosen, key=order.__getitem__), 2):
        key = ((one, other), (formats[one], formats[other]))
        if key not in known:
            wanted.append(key)
    if not wanted:
        return table
    configurations = [by_layer(trials.simulation, table, dict(zip(names, both, strict=True))) for names, both in wanted]
    pairs = [
        Pair(names, both, loss - alone[names[0]] - alone[names[1]])
        for (names, both), loss in zip(wanted, trials.losses(configurations), strict=True)
    ]
    return replace(table, pairs=(*table.pairs, *pairs))
