"""The type checks of the API server's CEL compiler, by Google's C++ implementation (PyPI: cel-expr-python).

The API server declares ``object`` and ``params`` as dyn, ``namespaceObject`` and a policy's variables with their types,
and every field of an ``Object`` initializer as dyn (k8s.io/apiserver/pkg/cel/mutation). It also refuses a list or map
literal whose elements differ in type (cel-go: ValidateHomogeneousAggregateLiterals). cel-expr-python does not: that
check is made here on the checked syntax tree. Type names with dots are flattened, as protobuf has no such nested types.
Cost limits are not checked.
"""

import re
from collections.abc import Iterator
from typing import Any

from cel_expr_python import cel
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2

from tests.support.judges.kubernetes import Manifest

OBJECT_TYPE = re.compile(r"\b(?:Object(?:\.\w+)*|JSONPatch)(?=\{)")
INDEXED = re.compile(r"\b((?:object|oldObject|params)(?:\.\w+)*)\[[^\]]*\]")
"""An index of a dyn value: dyn to cel-go, but of any type to cel-expr-python, which a field is not."""
VALUE, TEXT, NUMBER, BYTES, MESSAGE = ".google.protobuf.Value", 9, 3, 12, 11
"""The name of dyn in a message, and field types (descriptor.proto)."""
TREE: dict[str, dict[int, tuple[str, str]]] = {
    "Any": {2: ("value", "bytes")},
    "Types": {1: ("id", "int"), 2: ("type", "bytes")},
    "Checked": {3: ("types", "Types"), 4: ("expr", "Expr")},
    "Expr": {
        2: ("id", "int"),
        5: ("select", "Inner"),
        6: ("call", "Call"),
        7: ("list", "List"),
        8: ("struct", "Struct"),
        9: ("loop", "Loop"),
    },
    "Inner": {1: ("operand", "Expr")},
    "Call": {1: ("target", "Expr"), 3: ("args", "Expr")},
    "List": {1: ("elements", "Expr")},
    "Struct": {1: ("name", "str"), 2: ("entries", "Entry")},
    "Entry": {3: ("key", "Expr"), 4: ("value", "Expr")},
    "Loop": {
        number: (name, "Expr") for name, number in (("over", 2), ("init", 4), ("test", 5), ("step", 6), ("out", 7))
    },
}
"""The part of cel.expr.CheckedExpr that has the types (google/cel-spec: checked.proto, syntax.proto)."""


def check_policy(policy: Manifest) -> list[str]:
    """Return what the API server's compiler refuses in a policy's expressions, with the name of each."""
    known: dict[str, cel.Type] = {}
    problems: list[str] = []
    for name, expression, wanted in _expressions(policy["spec"]):
        try:
            seen, mixed = _check(expression, known)
        except RuntimeError as error:
            problems.append(f"{name}: {error}")
            continue
        problems += [f"{name}: {text}" for text in mixed]
        if wanted not in ("", seen.name()):
            problems.append(f"{name}: it is {seen.name()}, not {wanted}")
        if name.startswith("variables."):
            known[name] = seen
    return problems


def _expressions(spec: Manifest) -> Iterator[tuple[str, str, str]]:
    """Yield name, expression and type, variables in their order; "" is any type."""
    for item in spec.get("matchConditions", ()):
        yield item["name"], item["expression"], "BOOL"
    for item in spec.get("variables", ()):
        yield f"variables.{item['name']}", item["expression"], ""
    for number, item in enumerate(spec.get("validations", ())):
        yield f"validation {number}", item["expression"], "BOOL"
        if "messageExpression" in item:
            yield f"message {number}", item["messageExpression"], "STRING"
    for number, item in enumerate(spec.get("mutations", ())):
        yield f"mutation {number}", item["jsonPatch"]["expression"], "LIST<JSONPatch>"


def _check(expression: str, variables: dict[str, cel.Type]) -> tuple[cel.Type, list[str]]:
    """Return the type of an expression, and its literals with elements of different types."""
    flat = OBJECT_TYPE.sub(lambda name: name[0].replace(".", "_"), expression)
    flat = re.sub(r"\bvariables\.(?=\w)", "variables_", flat)
    flat = INDEXED.sub(r"\1.indexed", flat)
    names = cel.Type.Map(cel.Type.STRING, cel.Type.STRING)
    known = {
        "object": cel.Type.DYN,
        "oldObject": cel.Type.DYN,
        "params": cel.Type.DYN,
        "namespaceObject": cel.Type.Map(cel.Type.STRING, cel.Type.Map(cel.Type.STRING, names)),
        **{name.replace(".", "_"): kind for name, kind in variables.items()},
    }
    checked = cel.NewEnv(_messages(flat), variables=known).compile(flat)
    whole = _tree("Any")
    whole.ParseFromString(checked.serialize())
    tree = _tree("Checked")
    tree.ParseFromString(whole.value)
    return checked.return_type(), list(_mixed(tree.expr, {entry.id: entry.type for entry in tree.types}))


def _mixed(expr: Any, types: dict[int, bytes]) -> Iterator[str]:  # noqa: ANN401  (a message made at run time)
    """Yield the literals with elements of different types in a syntax tree."""
    entries = [] if expr.struct.name else expr.struct.entries
    parts = {
        "list": expr.list.elements,
        "keys of a map": [item.key for item in entries],
        "values of a map": [item.value for item in entries],
    }
    for what, elements in parts.items():
        if len({types.get(element.id) for element in elements}) > 1:
            yield f"{what}: the elements differ in type"
    loop = [getattr(expr.loop, name) for name, _ in TREE["Loop"].values() if expr.loop.HasField(name)]
    for inner in (expr.select.operand, expr.call.target, *expr.call.args, *expr.list.elements, *loop):
        if inner.ByteSize():
            yield from _mixed(inner, types)
    for item in expr.struct.entries:
        yield from _mixed(item.value, types)


def _messages(flat: str) -> descriptor_pool.DescriptorPool:
    """Return the types of the object initializers: each field that the expression sets is dyn."""
    file = descriptor_pb2.FileDescriptorProto(
        name="policy.proto", syntax="proto3", dependency=["google/protobuf/struct.proto"]
    )
    fields = sorted(set(re.findall(r"\b([A-Za-z]\w*):", flat)))
    for name in sorted(set(re.findall(r"\bObject\w*(?=\{)", flat))):
        message = file.message_type.add(name=name)
        for number, field in enumerate(fields, 1):
            message.field.add(name=field, number=number, type=MESSAGE, type_name=VALUE, label=1)
    patch = file.message_type.add(name="JSONPatch")
    for number, field in enumerate(("op", "path", "from"), 1):
        patch.field.add(name=field, number=number, type=TEXT, label=1)
    patch.field.add(name="value", number=4, type=MESSAGE, type_name=VALUE, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return pool


def _tree(name: str) -> Any:  # noqa: ANN401  (a message made at run time)
    """Return an empty message of TREE."""
    pool = descriptor_pool.DescriptorPool()
    file = descriptor_pb2.FileDescriptorProto(name="tree.proto", package="tree", syntax="proto3")
    kinds = {"int": NUMBER, "bytes": BYTES, "str": TEXT}
    repeated = {"types", "args", "elements", "entries"}
    for message, fields in TREE.items():
        made = file.message_type.add(name=message)
        for number, (field, kind) in fields.items():
            named = {} if kind in kinds else {"type_name": f".tree.{kind}"}
            label = 3 if field in repeated else 1  # descriptor.proto: LABEL_REPEATED, LABEL_OPTIONAL
            made.field.add(name=field, number=number, type=kinds.get(kind, MESSAGE), label=label, **named)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tree.{name}"))()
