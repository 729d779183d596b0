"""Float islands: a Relax operator that the oracle has no function for is computed by TVM itself, compiled alone."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import tvm
from tvm import relax
from tvm.ir import GenericConst, GlobalVar, IRModule


def evaluate(call: relax.Call, values: tuple[Any, ...], module: IRModule | None = None) -> Any:
    """The call's result, an array or a tuple of arrays.

    values: the evaluated arguments of the call; arrays, and tuples of arrays, are handed to the compiled operator.
    module: where a kernel that is called is found.
    """
    params: list[relax.Var] = []
    arrays: list[np.ndarray] = []
    args = [_with_params(arg, value, params, arrays) for arg, value in zip(call.args, values, strict=True)]
    builder = relax.BlockBuilder()
    result = builder.normalize(relax.Call(call.op, args, call.attrs, call.ty_args))
    var = relax.Var("result", result.ty)
    body = builder.normalize(relax.SeqExpr([relax.BindingBlock([relax.VarBinding(var, result)])], var))
    main = relax.Function(params, body, var.ty).with_attr("global_symbol", "main")
    functions = {arg: module[arg] for arg in call.args if isinstance(arg, GlobalVar) and module is not None}
    machine = _compiled(tvm.ir.save_json(IRModule({GlobalVar("main"): main, **functions})))
    return _to_numpy(machine["main"](*(tvm.runtime.tensor(array) for array in arrays)))


def _with_params(arg: relax.Expr, value: Any, params: list[relax.Var], arrays: list[np.ndarray]) -> relax.Expr:
    """``arg`` with a fresh parameter in place of each tensor."""
    if isinstance(arg, relax.Tuple):
        return relax.Tuple([_with_params(a, v, params, arrays) for a, v in zip(arg.fields, value, strict=True)])
    if isinstance(arg, (relax.Var, GenericConst)):
        if isinstance(value, tuple):
            return relax.Tuple([_param(v, params, arrays) for v in value])
        return _param(value, params, arrays)
    return arg


def _param(array: np.ndarray, params: list[relax.Var], arrays: list[np.ndarray]) -> relax.Var:
    params.append(relax.Var(f"x{len(params)}", relax.TensorType(array.shape, str(array.dtype))))
    arrays.append(np.asarray(array, order="C"))
    return params[-1]


@lru_cache(maxsize=256)
def _compiled(module_json: str) -> relax.VirtualMachine:
    """The text, not the module, is the key: equal operators on equal types are compiled once."""
    return relax.VirtualMachine(tvm.compile(tvm.ir.load_json(module_json), target="llvm"), tvm.cpu())


def _to_numpy(result: Any) -> Any:
    return result.numpy() if isinstance(result, tvm.runtime.Tensor) else tuple(_to_numpy(field) for field in result)
