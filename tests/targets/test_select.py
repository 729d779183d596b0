from __future__ import annotations

import pytest

from qcompile.errors import QCompileError
from qcompile.targets import select
from qcompile.targets.rows import ROWS as EVERY
from qcompile.targets.select import select_target
from qcompile.targets.x86 import ROWS

VNNI = frozenset(ROWS[0].features)


def refusal(name: str) -> str:
    with pytest.raises(QCompileError) as caught:
        select_target(name)
    return str(caught.value)


@pytest.mark.parametrize("row", EVERY, ids=lambda row: row.name)
def test_rows_by_name(row):
    assert select_target(row.name) is row
    assert select_target(row.name.replace("-", "_").upper()) is row


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (VNNI, "x86-vnni"),
        (VNNI | {"avx512vbmi"}, "x86-vnni+avx512vbmi"),
        (VNNI | {"avx512vbmi", "avx512_bf16"}, "x86-vnni+avx512vbmi+avx512_bf16"),
        (VNNI - {"avx512_vnni"}, "x86-avx512"),
        (VNNI - {"avx512_vnni", "avx512f"} | {"avx_vnni"}, "x86-avxvnni"),
        (VNNI - {"avx512_vnni", "avx512f"}, "x86-avx2"),
    ],
)
def test_best_row_of_the_machine(monkeypatch, host, name):
    monkeypatch.setattr(select, "host_features", lambda: host)
    assert select_target("native").name == select_target("x86").name == name


def test_features_of_the_machine_do_not_leak_into_named_rows(monkeypatch):
    monkeypatch.setattr(select, "host_features", frozenset)
    assert select_target("x86-vnni+avx512vbmi").features == (*ROWS[0].features, "avx512vbmi")


def test_a_machine_too_old(monkeypatch):
    monkeypatch.setattr(select, "host_features", frozenset)
    assert refusal("x86") == (
        "this machine can run none of the targets; name one to build for: x86-vnni, x86-avxvnni, x86-avx512, x86-avx2"
    )
    assert refusal("native").endswith("x86-avx2, arm-i8mm, arm-dotprod, arm-neon")


def test_arm_is_the_row_with_dot_products():
    assert select_target("arm").name == "arm-dotprod"
    assert refusal("cortex-a77").startswith("no target 'cortex-a77'; did you mean 'cortex-a7")


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("fp asimd evtstrm crc32 cpuid", "arm-neon"),
        ("fp asimd evtstrm crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp", "arm-dotprod"),
        ("fp asimd atomics fphp asimdhp asimdrdm lrcpc asimddp sve svei8mm i8mm bf16", "arm-i8mm"),
    ],
)
def test_best_row_of_an_arm_machine(monkeypatch, words, name):
    monkeypatch.setattr(select, "host_features", lambda: frozenset(words.split()))
    assert select_target("native").name == name
    assert "can run none of the targets" in refusal("x86")


def test_unknown_names():
    assert refusal("x86-vnn") == (
        "no target 'x86-vnn'; did you mean 'x86-vnni'? "
        "(one of: native, x86, arm, x86-vnni, x86-avxvnni, x86-avx512, x86-avx2, arm-i8mm, arm-dotprod, arm-neon, "
        "cortex-a53, cortex-a72, ... 20 in all)"
    )
    assert refusal("x86-vnni+avx512vbm") == (
        "target x86-vnni has no optional feature 'avx512vbm'; "
        "did you mean 'avx512vbmi'? (one of: avx512vbmi, avx512_bf16)"
    )
    assert refusal("x86-avx2+fma") == ("target x86-avx2 has no optional feature 'fma'; it has none")
