"""``plan_uniform``: one precision wherever it can be had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qcompile import graph
from qcompile.assign.bias_correction import correct_biases
from qcompile.assign.constants import constant_plans
from qcompile.assign.formats import choose_formats
from qcompile.assign.grouped import grouped_plans
from qcompile.assign.logarithms import before_logarithms
from qcompile.assign.names import check_ends, excluded_layers
from qcompile.assign.scales import activation_plans
from qcompile.assign.structure import Structure
from qcompile.assign.weight_only import weight_only_plans
from qcompile.calibrate.methods import PERCENTILE, tensor_range
from qcompile.calibrate.stats import TensorStats
from qcompile.errors import QCompileError, nearest
from qcompile.formats import FORMATS, GROUP
from qcompile.model import Model
from qcompile.plan import LayerPlan, QuantPlan, TensorPlan
from qcompile.reference.narrow import NARROW

if TYPE_CHECKING:
    from qcompile.targets.target import Target

PRECISIONS = tuple(FORMATS)
SOFTMAX_STEP = 0.25  # of its input's codes at most: rounding changes the exponentials by an eighth then


def plan_uniform(
    model: Model,
    stats: TensorStats | None,
    precision: str = "int8",
    target: Target | None = None,
    exclude: Sequence[str] = (),
    integer_inputs: Sequence[str] = (),
    integer_outputs: Sequence[str] = (),
    method: str = "minmax",
    percent: float = PERCENTILE,
    group_size: int = GROUP,
    bias_correction: bool = True,
) -> QuantPlan:
    """A plan with every layer in ``precision`` that can be.

    Parameters
    ----------
    model: tidied.
    stats: of the same model's tensors; may be None for formats whose layers compute on floats.
    precision: a name in ``qcompile.formats``: "int8" (activations uint8 per tensor, weights int8 by output channel),
    "w4a8" (weights int4 by groups along the reduction where a layer can have them, else int8); of those that compute on
    floats, where layers that cannot have them are float32, "bf16", "half", "fp8_e4m3", "fp8_e5m2" (weights with a scale
    for each output channel), "w8", "w4" (by groups), "fp16" (weights alone) and "fp32".
    target: the machine; every target so far takes the same plan.
    exclude: ONNX node names, layer (tensor) names or operator types that stay in float32.
    integer_inputs, integer_outputs: model inputs and outputs that are given and returned as codes, besides those
    that a pre-quantized model has so; these keep the meaning of their codes.
    method: how a range is chosen from the statistics. percent: for the method "percentile".
    group_size: of "w4a8" and "w4", how many weights share an integer scale.
    bias_correction: whether biases make up for what rounding the weights shifts the means of outputs by.

    Raises
    ------
    QCompileError: for a name that the model does not have, and a tensor that ``stats`` lacks.
    """
    if precision not in PRECISIONS:
        raise QCompileError(f"unknown precision '{precision}'", remedy=nearest(precision, PRECISIONS))
    structure = Structure(graph.read(model.module))
    excluded = excluded_layers(model, structure, exclude)
    check_ends(model, structure, integer_inputs, integer_outputs)
    given = model.imported_plan or QuantPlan()
    integer_inputs = tuple(dict.fromkeys([*given.integer_inputs, *integer_inputs]))
    integer_outputs = tuple(dict.fromkeys([*given.integer_outputs, *integer_outputs]))
    if precision == "fp32":
        layers = {chain.name: LayerPlan("fp32", "asked for") for chain in structure.chains}
        return QuantPlan(_given_ends(structure, given), layers, given.integer_inputs, given.integer_outputs, method)

    if not FORMATS[precision].codes:
        refused = {**_beyond(structure, stats, FORMATS[precision].activations), **excluded}
        tensors, layers = weight_only_plans(structure, precision, refused, group_size)
        tensors.update(_given_ends(structure, given))
        ends = (given.integer_inputs, given.integer_outputs)
        plan = QuantPlan(tensors, layers, *ends, method, model.channel_scales)
        corrects = bias_correction and FORMATS[precision].integer_weights and stats is not None
        return correct_biases(model, stats, plan) if corrects else plan

    refused = {**_too_coarse(structure, stats), **before_logarithms(structure, stats)}
    refused |= {**_without_range(structure, stats), **excluded}
    formats = choose_formats(structure, refused, integer_inputs, integer_outputs)
    ranges: dict[str, tuple[float, float]] = {}

    def range_of(name: str) -> tuple[float, float]:
        if name not in ranges:
            if stats is None or name not in stats.records:
                raise QCompileError("no statistics of this tensor", node=name, remedy="calibrate this model again")
            try:
                ranges[name] = tensor_range(stats.records[name], method, percent)
            except QCompileError as error:
                raise QCompileError(error.reason, node=name, remedy=error.remedy) from None
        return ranges[name]

    tensors = activation_plans(structure, formats, range_of, integer_inputs, integer_outputs)
    tensors.update(_given_ends(structure, given))
    layers = dict(formats)
    for chain in structure.chains:
        if layers[chain.name].format == "int8":
            constants: dict[str, TensorPlan] | str
            if FORMATS[precision].grouped and chain.weight is not None:
                constants = grouped_plans(chain, tensors, group_size)
                if not isinstance(constants, str):
                    layers[chain.name] = LayerPlan(precision)
                    tensors.update(constants)
                    continue
                layers[chain.name] = LayerPlan("int8", constants)
            constants = constant_plans(chain, tensors)
            if isinstance(constants, str):
                layers[chain.name] = LayerPlan("fp32", constants)
            else:
                tensors.update(constants)
    plan = QuantPlan(tensors, layers, integer_inputs, integer_outputs, method, model.channel_scales)
    return correct_biases(model, stats, plan) if bias_correction and stats is not None else plan


def _too_coarse(structure: Structure, stats: TensorStats | None) -> dict[str, str]:
    """Softmaxes whose input no 256 codes resolve, because it spans a mask of -1e4, and why they stay in float32."""
    reasons = {}
    for chain in structure.chains:
        record = stats.records.get(getattr(chain.inputs[0], "name", "")) if stats and chain.kind == "softmax" else None
        if record is not None and (step := (record.max - record.min) / 255) > SOFTMAX_STEP:
            reasons[chain.name] = f"codes of {chain.inputs[0].name} would be {step:.2g} apart, too coarse for a softmax"
    return reasons


def _beyond(structure: Structure, stats: TensorStats | None, dtype: str) -> dict[str, str]:
    """Layers whose input is seen to reach beyond the largest number of narrow floats, and why they stay in float32."""
    reasons = {}
    for chain in structure.chains:
        record = stats.records.get(getattr(chain.inputs[0], "name", "")) if stats and dtype in NARROW else None
        if record is not None and (most := max(-record.min, record.max)) > NARROW[dtype].largest:
            reasons[chain.name] = (
                f"{chain.inputs[0].name} reaches {most:.4g}; the largest {dtype} is {NARROW[dtype].largest:g}"
            )
    return reasons


def _without_range(structure: Structure, stats: TensorStats | None) -> dict[str, str]:
    """Layers that read or make infinite values (a mask of -inf), which no scale reaches, and why they stay in float32.

    Raises ``QCompileError`` for NaN: then data or model are broken.
    """
    records = stats.records if stats else {}
    infinite = set()
    for name, record in records.items():
        if record.nan:
            raise QCompileError(
                f"{record.nan} of its values are NaN on the calibration data",
                node=name,
                remedy="look at the scale of the data, and at the layers before this tensor",
            )
        if record.infinite:
            infinite.add(name)
    reasons = {}
    for chain in structure.chains:
        for tensor in (*chain.inputs, chain.residual, chain.out):
            if getattr(tensor, "name", None) in infinite:
                reasons[chain.name] = f"{tensor.name} holds infinite values on the calibration data"
    return reasons


def _given_ends(structure: Structure, given: QuantPlan) -> dict[str, TensorPlan]:
    """The inputs and outputs of a pre-quantized model that are codes, and the tensors that they are moved from."""
    ends = [var for var in (*structure.main.params, *structure.outputs) if hasattr(var, "name")]
    wanted = {*given.integer_inputs, *given.integer_outputs} & given.tensors.keys()
    return {var.name: given.tensors[end.name] for end in ends if end.name in wanted for var in structure.path(end)}
