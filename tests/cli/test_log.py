"""``qcompile log``: what each command prints, and what it leaves."""

from __future__ import annotations

import dataclasses
import json
import os
from functools import partial
from pathlib import Path

import pytest

from qcompile.targets.kernels.templates import instructions
from qcompile.targets.kernels.workload import Workload
from qcompile.targets.select import select_target
from qcompile.tune.locations import default_log
from qcompile.tune.log import TuningLog
from qcompile.tune.record import Record, Search, canonical

CONV = canonical(
    {
        "operator": "conv2d",
        "weight": [128, 64, 3, 3],
        "x": ["uint8", [64, 56, 56], 16, [0, 1, 0, 1]],
        "out": ["uint8", [128, 28, 28], 16, [0, 0, 0, 0]],
        "strides": [2, 2],
        "padding": [1, 1, 1, 1],
        "dilation": [1, 1],
        "groups": 1,
        "threads": 1,
    }
)
DENSE = canonical(
    {
        "operator": "dense",
        "weight": [10, 64],
        "x": ["float32", [1, 64]],
        "out": ["float32", [1, 10]],
        "threads": 1,
    }
)


def used_for(workload: str, target: str) -> str:
    return instructions(Workload.from_key(workload, 1), select_target(target))


def record(us: float | None, knobs: int = 4, workload: str = CONV, target: str = "x86-vnni", **changes) -> Record:
    result = Record(
        workload,
        batch=1,
        instructions=used_for(workload, target),
        template=1,
        knobs=canonical({"columns": knobs, "order": "channels"}),
        costs=() if us is None else (us / 1e6, us / 1e6),
        error="crashed" if us is None else "",
        device="EPYC",
        cores=2,
        created="2026-01-31T12:00:00Z",
        tools=(("tvm", "0.27.0"),),
        footprint=1 << 20,
    )
    return dataclasses.replace(result, **changes)


VNNI = record(30.0).instructions
FLOAT = record(1.5, workload=DENSE).instructions
RECORDS = [record(30.0, 4), record(None, 16), record(20.0, 8), record(1.5, workload=DENSE)]
SEARCH = Search(*dataclasses.astuple(RECORDS[0].task)[:4], trials=3, finished=True, created="2026-01-31T12:00:00Z")


@pytest.fixture
def cli(cli, tmp_path, monkeypatch):
    """``cli("show")`` -> (exit code, stdout, stderr), in an empty folder with an empty data home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return partial(cli, "log")


def fill(path: str | Path, *items: Record | Search) -> str:
    with TuningLog.open(path) as log:
        log.update(items)
    return str(path)


def contents(path: str | Path) -> set[Record | Search]:
    with TuningLog.open(path, read_only=True) as log:
        return set(log.items())


def lines(text: str) -> list[str]:
    """Lines with the runs of spaces of a table collapsed, rules left out."""
    return [" ".join(line.split()) for line in text.splitlines() if "─" not in line]


def test_help(cli):
    code, out, err = cli()
    assert (code, err) == (0, "") and "qcompile log merge a.db b.db records.jsonl -o all.db\n" in out
    assert [line.split()[0] for line in out.split("Commands:\n")[1].splitlines()] == [
        "show",
        "merge",
        "export",
        "import",
        "prune",
    ]
    for command in ("show", "merge", "export", "import", "prune"):
        code, out, err = cli(command, "-h")
        assert (code, err) == (0, "") and f"  Examples:\n    qcompile log {command}" in out


def test_show(cli):
    path = fill("log.db", SEARCH, *RECORDS)
    code, out, err = cli("show", path)
    assert (code, err) == (0, "")
    assert lines(out) == [
        f"log log.db ({os.path.getsize(path) / 1024:.1f} KB)",
        "records 4 of 2 layers; 1 failed",
        "operator shape format instructions batch trials best us vs first knobs device date search",
        f"conv2d 3x3/2 64 -> 128, 28x28 int8 {VNNI} 1 3 (1 failed) 20.0 1.50x columns 8, order channels EPYC "
        "2026-01-31 finished",
        f"dense 1x64 @ 64x10 fp32 {FLOAT} 1 1 1.5 1.00x columns 4, order channels EPYC 2026-01-31",
    ]


def test_show_tells_rows_apart(cli):
    threads = record(1.0, workload=CONV.replace('"threads":1', '"threads":2'))
    unknown = dataclasses.replace(record(1.0), workload='{"operator":"lstm"}', instructions="riscv", template=2)
    other = [record(9.0, template=2), record(None, device="Xeon")]
    path = fill("log.db", *RECORDS[:1], threads, unknown, *other)
    header, *rows = lines(cli("show", path)[1])[2:]
    assert header == (
        "operator shape format instructions template batch threads trials best us vs first knobs device date"
    )
    assert [row.replace("3x3/2 64 -> 128, 28x28 int8 ", "") for row in rows] == [
        f"conv2d {VNNI} v1 1 1 30.0 1.00x columns 4, order channels EPYC 2026-01-31",
        f"conv2d {VNNI} v1 1 1 (1 failed) Xeon",
        f"conv2d {VNNI} v2 1 1 9.0 1.00x columns 4, order channels EPYC 2026-01-31",
        f"conv2d {VNNI} v1 1 2 1 1.0 1.00x columns 4, order channels EPYC 2026-01-31",
        "lstm unknown riscv v2 1 1 1.0 1.00x columns 4, order channels EPYC 2026-01-31",
    ]


def test_show_for_a_target(cli):
    unknown = dataclasses.replace(record(3.0), workload='{"operator":"lstm"}')
    path = fill("log.db", record(1.0), record(2.0, target="x86-avx2"), unknown)
    for target, expected in (("x86-vnni", VNNI), ("x86_avx2", used_for(CONV, "x86-avx2"))):
        out = json.loads(cli("show", path, "--target", target, "--json")[1])
        assert [task["instructions"] for task in out["tasks"]] == [expected]
    assert lines(cli("show", path, "--target", "x86-avxvnni")[1])[1:] == ["records 0 of 0 layers"]


def test_show_for_machines(cli):
    code, out, err = cli("show", fill("log.db", SEARCH, *RECORDS), "--json")
    report = json.loads(out)
    assert (code, err, report["records"], report["failed"]) == (0, "", 4, 1)
    conv, dense = report["tasks"]
    assert conv["workload"] == json.loads(CONV)
    assert (conv["trials"], conv["failed"], conv["finished"], conv["first_seconds"]) == (3, 1, True, 3e-5)
    assert conv["best"] == {
        "minimum_seconds": 2e-5,
        "median_seconds": 2e-5,
        "spread": 0.0,
        "knobs": {"columns": 8, "order": "channels"},
        "cores": 2,
        "created": "2026-01-31T12:00:00Z",
        "tools": {"tvm": "0.27.0"},
        "footprint": 1 << 20,
    }
    assert dense["finished"] is None


def test_the_own_log_is_meant_if_none_is_named(cli):
    own = default_log()
    missing = f"error: {own}: no such tuning log; 'qcompile tune' makes one\n"
    for command in (["show"], ["export", "-o", "records.jsonl"], ["prune"]):
        assert cli(*command) == (2, "", missing)
    assert not own.exists() and not os.listdir()
    fill(own, *RECORDS)
    assert cli("show")[1].startswith(f"log        {own} (")
    assert cli("export", "-o", "records.jsonl") == (0, "", "records.jsonl: 4 records\n")
    assert cli("prune")[1] == f"{own}: 1 of 4 records dropped (1 failed)\n"
    assert cli("import", "records.jsonl")[1] == f"{own}: 1 of 4 records added\n"


def test_merge_into_a_new_log_and_into_one_that_is_there(cli):
    a, b = fill("a.db", *RECORDS[:2], SEARCH), fill("b.db", *RECORDS[1:])
    assert cli("merge", a, b, "-o", "new/c.db") == (0, "new/c.db: 4 of 5 records added\n", "")
    assert contents("new/c.db") == {SEARCH, *RECORDS}
    assert cli("merge", a, b, "-o", a) == (0, "a.db: 2 of 5 records added\n", "")
    assert contents(a) == {SEARCH, *RECORDS}
    assert contents(b) == {*RECORDS[1:]}
    assert sorted(os.listdir()) == ["a.db", "b.db", "new"] and os.listdir("new") == ["c.db"]


@pytest.mark.parametrize("there", [False, True])
def test_a_merge_that_fails_leaves_all_as_it_was(cli, there):
    fill("a.db", RECORDS[0])
    Path("bad.jsonl").write_text("notes")
    if there:
        fill("c.db", RECORDS[1])
    code, out, err = cli("merge", "a.db", "bad.jsonl", "-o", "c.db")
    assert (code, out) == (2, "") and err.startswith("error: bad.jsonl:1: not JSON; give a file written by")
    assert sorted(os.listdir()) == ["a.db", "bad.jsonl", *(["c.db"] if there else [])]
    assert not there or contents("c.db") == {RECORDS[1]}


def test_export_and_import(cli):
    path = fill("log.db", SEARCH, *RECORDS)
    assert cli("export", path, "-o", "text/records.jsonl") == (0, "", "text/records.jsonl: 4 records\n")
    text = Path("text/records.jsonl").read_text()
    assert cli("export", path) == cli("export", path, "-o", "-") == (0, text, "")
    first, *others = map(json.loads, text.splitlines())
    assert first == {"format": "qcompile.tuning-log", "version": 1}
    assert [item["kind"] for item in others] == ["search", "record", "record", "record", "record"]
    assert others[1]["knobs"] == {"columns": 4, "order": "channels"} and others[1]["seconds"] == [3e-5, 3e-5]
    assert cli("import", "text/records.jsonl", "new.db") == (0, "new.db: 4 of 4 records added\n", "")
    assert cli("import", "text/records.jsonl", "new.db") == (0, "new.db: 0 of 4 records added\n", "")
    assert contents("new.db") == {SEARCH, *RECORDS}
    assert cli("export", "new.db")[1] == text
    assert cli("show", "text/records.jsonl", "--json")[1] == cli("show", path, "--json")[1].replace(
        "log.db", "text/records.jsonl"
    )


def test_export_replaces_an_export_and_nothing_else(cli):
    path = fill("log.db", *RECORDS)
    cli("export", fill("old.db"), "-o", "records.jsonl")
    assert cli("export", path, "-o", "records.jsonl")[0] == 0
    assert contents("records.jsonl") == set(RECORDS)
    Path("notes").write_text("mine")
    Path("folder").mkdir()
    for other in ("notes", "folder", "old.db"):
        expected = f"error: {other}: not an exported log, so it is left alone; name a new file\n"
        assert cli("export", path, "-o", other) == (2, "", expected)
    assert Path("notes").read_text() == "mine" and contents("old.db") == set()


def test_prune(cli):
    avx2 = record(5.0, target="x86-avx2")
    path = fill("log.db", SEARCH, *RECORDS, avx2, record(1.0, template=0))
    options = ["prune", path, "--keep", 1, "--target", "x86-vnni"]
    detail = "(1 for other targets, 1 of older templates, 1 failed, 1 slower than others)"
    assert cli(*options, "--dry-run") == (0, f"log.db: 4 of 6 records would go {detail}\n", "")
    assert len(contents(path)) == 7
    assert cli(*options) == (0, f"log.db: 4 of 6 records dropped {detail}\n", "")
    assert contents(path) == {SEARCH, *RECORDS[2:]}
    assert cli(*options) == (0, "log.db: 0 of 2 records dropped\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["shw"], "No such command 'shw'. Did you mean 'show'?; see 'qcompile log --help'"),
        (["show", "no.db"], "no.db: no such tuning log; 'qcompile tune' makes one"),
        (["show", "."], ".: a folder, not a tuning log; name a file in it"),
        (
            ["show", "log.db", "--target", "x86-vni"],
            "no target 'x86-vni'; did you mean 'x86-vnni'? (one of: native, x86, arm, x86-vnni, x86-avxvnni, "
            "x86-avx512, x86-avx2, arm-i8mm, arm-dotprod, arm-neon, cortex-a53, cortex-a72, ... 21 in all)",
        ),
        (["merge", "log.db"], "Missing option '-o' / '--out' / '--output'; see 'qcompile log merge --help'"),
        (["merge", "-o", "new.db"], "Missing argument 'LOG...'; see 'qcompile log merge --help'"),
        (["merge", "log.db", "no.db", "-o", "new.db"], "no.db: no such tuning log; 'qcompile tune' makes one"),
        (
            ["merge", "log.db", "-o", "new.jsonl"],
            "new.jsonl: a log of JSON lines is only read; put it into a log with 'qcompile log import'",
        ),
        (
            ["import", "log.db", "/proc/new.db"],
            "/proc/new.db: cannot be written: No such file or directory; name another log",
        ),
        (
            ["export", "log.db", "-o", "/proc/x.jsonl"],
            "/proc/x.jsonl: cannot be written: No such file or directory; name another log",
        ),
        (
            ["prune", "log.db", "--keep", "0"],
            "Invalid value for '--keep': Input should be greater than or equal to 1; see 'qcompile log prune --help'",
        ),
        (["prune", "no.db"], "no.db: no such tuning log; 'qcompile tune' makes one"),
    ],
)
def test_misuse_is_one_line_and_code_2(cli, arguments, message):
    fill("log.db", *RECORDS)
    assert cli(*arguments) == (2, "", f"error: {message}\n")
    assert os.listdir() == ["log.db"] and contents("log.db") == set(RECORDS)
