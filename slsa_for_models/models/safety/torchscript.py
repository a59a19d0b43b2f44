"""TorchScript: a program of known operators, written anew from what was read.

PyTorch compiles every class of the archive while it loads, and runs hooks and methods that stand
in no graph. So the whole program is read here: it is close enough to Python for Python's own
parser. What is written for PyTorch is made from the parsed program, so that it can see no other.
"""

from __future__ import annotations

import ast
import math
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from slsa_for_models.errors import UnsafeModelError
from slsa_for_models.models.safety import check_name, check_size, words, zips
from slsa_for_models.models.safety.pickles import Machine, Object, Tensor

_MEMBERS = (
    r"data\.pkl|data/\d+|constants\.pkl|constants/\d+|version|byteorder|code/__torch__(/\w+)*\.py"
    r"|\.format_version|\.storage_alignment"
    # Not handed on: where the code came from, and what it was traced with.
    r"|code/__torch__(/\w+)*\.py\.debug_pkl|\.data/serialization_id|traced_inputs(\.pkl|/\d+)"
)

# What convolutional networks consist of, traced or scripted, as `torch.NAME` or `ops.aten.NAME`.
_OPERATORS = words(
    """
    _convolution conv2d batch_norm layer_norm group_norm relu relu_ relu6 leaky_relu gelu silu elu
    sigmoid tanh hardtanh hardtanh_ hardswish hardsigmoid softmax log_softmax
    max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d linear addmm matmul
    mean sum flatten view reshape size dim len contiguous permute transpose squeeze unsqueeze
    add add_ sub mul div cat dropout dropout_ feature_dropout clamp
    eq ne lt le gt ge floordiv format __is__ __isnot__ __not__
    """
)
_FUNCTIONS = words("annotate getattr unchecked_cast int float bool range")
_TYPES = words("None Tensor NoneType int float bool str List Tuple Optional Final Dict number")
_MOST_FUNCTIONS = 10_000


@dataclass
class _Program:
    """What the archive's code defines, by full names."""

    classes: dict[str, dict[str, ast.expr]] = field(default_factory=dict)  # attributes' types
    methods: dict[str, set[str]] = field(default_factory=dict)  # names, by class
    functions: set[str] = field(default_factory=set)


def clean_program(path: Path, clean: Path) -> None:
    """Writes a TorchScript archive anew, if all of its program only computes.

    Raises:
        UnsafeModelError: It does not, or is malformed.
    """
    with zips.opened(path) as archive, zipfile.ZipFile(clean, "w") as target:
        folder = zips.check_allowed(archive, _MEMBERS)
        code = {
            name: _parse(zips.read_small(archive, name), name)
            for name in archive.namelist()
            if name.endswith(".py")
        }
        program = _declare({_module(name, folder): tree for name, tree in code.items()})
        for name, tree in code.items():
            _Checker(program, name).check(tree)
            target.writestr(name, ast.unparse(tree) + "\n")
        for part in ("data", "constants"):
            _copy_values(archive, target, folder, part, program)
        for name in ("version", "byteorder"):
            if folder + name in archive.namelist():
                target.writestr(folder + name, archive.read(folder + name))


def _copy_values(
    archive: zipfile.ZipFile, target: zipfile.ZipFile, folder: str, part: str, program: _Program
) -> None:
    """Copies `data` or `constants`: a pickle, and the bytes of its tensors."""
    pickle, prefix = f"{folder}{part}.pkl", f"{folder}{part}/"
    if pickle not in archive.namelist():
        raise UnsafeModelError("not a TorchScript archive", where=pickle)
    members = [each for each in archive.infolist() if each.filename.startswith(prefix)]
    sizes = {member.filename.removeprefix(prefix): member.file_size for member in members}
    machine = Machine(sizes, frozenset(program.classes if part == "data" else ()), pickle)
    content = zips.read_small(archive, pickle)
    value = machine.run(content)
    check_size(machine.bytes, sum(sizes.values()), "tensors")
    if part == "data":
        _check_object(value, program)
    elif not isinstance(value, tuple) or not all(isinstance(item, Tensor) for item in value):
        raise UnsafeModelError("constants that are no tensors", where=pickle)
    target.writestr(pickle, content)
    for member in members:
        with archive.open(member) as old, target.open(member.filename, "w") as new:
            while chunk := old.read(1 << 20):
                new.write(chunk)


# values against declarations ----------------------------------------------------------------------


def _check_object(value: object, program: _Program) -> None:
    """Every object has the attributes that its class declares, of the types declared."""
    if not isinstance(value, Object):
        raise UnsafeModelError("a TorchScript archive of no module", where="data.pkl")
    pending, seen = [value], set()
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        declared = program.classes[item.class_name]
        if set(item.attributes) != set(declared):
            raise UnsafeModelError(
                "an object has other attributes than its class", where=item.class_name
            )
        for name, value in item.attributes.items():
            if not _is(value, declared[name]):
                raise UnsafeModelError(
                    "an attribute of another type than declared",
                    where=f"{item.class_name}.{name}"[:200],
                    expected=ast.unparse(declared[name])[:200],
                )
            if isinstance(value, Object):
                pending.append(value)


def _is(value: object, kind: ast.expr) -> bool:
    """Whether a value is of a type of the few that modules' attributes have."""
    text = ast.unparse(kind)
    if isinstance(kind, ast.Subscript):
        outer, inner = ast.unparse(kind.value), kind.slice
        if outer == "Optional":
            return value is None or _is(value, inner)
        if outer == "List":
            return isinstance(value, list) and all(_is(item, inner) for item in value)
        if outer == "Tuple":
            kinds = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            whole = isinstance(value, tuple) and len(value) == len(kinds)
            return whole and all(map(_is, value, kinds))  # type: ignore[call-overload]
        return False
    if isinstance(value, Object):
        return value.class_name == text
    plain: dict[str, type] = {"Tensor": Tensor, "int": int, "float": float, "bool": bool}
    plain |= {"str": str, "NoneType": type(None)}
    return type(value) is plain.get(text)


# the program --------------------------------------------------------------------------------------


def _parse(source: bytes, name: str) -> ast.Module:
    try:
        tree = ast.parse(source.decode("ascii"))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UnsafeModelError(
            "TorchScript code that cannot be read", where=name, found=str(error)[:200]
        ) from error
    depth = _depth(tree)
    if depth > 100:
        raise UnsafeModelError("TorchScript code that is nested too deeply", where=name)
    return tree


def _depth(tree: ast.AST) -> int:
    level, depth = [tree], 0
    while level and depth <= 200:
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        depth += 1
    return depth


def _module(member: str, folder: str) -> str:
    """`code/__torch__/torch/nn.py` is the module `__torch__.torch.nn`."""
    return member.removeprefix(f"{folder}code/").removesuffix(".py").replace("/", ".")


def _declare(modules: dict[str, ast.Module]) -> _Program:
    program, count = _Program(), 0
    for module, tree in modules.items():
        for item in tree.body:
            name = f"{module}.{getattr(item, 'name', '')}"
            if name in program.classes or name in program.functions:
                raise UnsafeModelError("TorchScript code that defines something twice", where=name)
            if isinstance(item, ast.ClassDef):
                functions = [each.name for each in item.body if isinstance(each, ast.FunctionDef)]
                if len(set(functions)) != len(functions):
                    raise UnsafeModelError("TorchScript class with a method twice", where=name)
                program.methods[name] = set(functions)
                program.classes[name] = dict(_attributes(item, name))
                count += len(functions)
            elif isinstance(item, ast.FunctionDef):
                program.functions.add(name)
                count += 1
    if count > _MOST_FUNCTIONS:
        raise UnsafeModelError("TorchScript code with too many functions", found=str(count))
    return program


def _attributes(item: ast.ClassDef, where: str) -> Iterator[tuple[str, ast.expr]]:
    """The attributes that a class declares, without constants, which are no part of its objects."""
    names = set()
    for statement in item.body:
        found: tuple[str, ast.expr] | None = None
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            constant = ast.unparse(statement.annotation).startswith("Final[")
            if constant != (statement.value is not None):
                raise UnsafeModelError("TorchScript class with a malformed attribute", where=where)
            found = None if constant else (statement.target.id, statement.annotation)
        elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Subscript):
            key = statement.targets[0].slice
            found = (str(getattr(key, "value", "")), statement.value)
        if found is not None:
            if found[0] in names:
                raise UnsafeModelError("TorchScript class with an attribute twice", where=where)
            names.add(found[0])
            yield found


class _Checker:
    """Refuses every piece of a program that is not known only to compute."""

    def __init__(self, program: _Program, member: str) -> None:
        self._program, self._member = program, member
        self._variables: dict[str, str] = {}  # of a function so far; the class of modules, or ""

    def check(self, tree: ast.Module) -> None:
        """Everything in one file of code."""
        for item in tree.body:
            if isinstance(item, ast.ClassDef):
                self._class(item)
            elif isinstance(item, ast.FunctionDef):
                self._function(item)
            else:
                raise self._refusal(item)

    def _refusal(self, node: ast.AST, what: str | None = None) -> UnsafeModelError:
        return UnsafeModelError(
            what or "TorchScript code that does more than a classifier needs",
            where=self._member[-200:],
            found=ast.unparse(node).strip().split("\n")[0][:200],
        )

    # classes and functions

    def _class(self, item: ast.ClassDef) -> None:
        bases = [ast.unparse(base) for base in item.bases]
        if bases != ["Module"] or item.keywords or not _is_ordinary(item):
            raise self._refusal(item)
        for statement in item.body:
            if isinstance(statement, ast.FunctionDef):
                self._function(statement)
            elif isinstance(statement, ast.AnnAssign):
                self._type(statement.annotation)
                if statement.value is not None:
                    self._expression(statement.value)
            elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
                self._table(statement.targets[0], statement.value)
            elif not isinstance(statement, ast.Pass):
                raise self._refusal(statement)

    def _table(self, target: ast.expr, value: ast.expr) -> None:
        """`__parameters__ = [...]`, `__buffers__ = [...]`, `__annotations__["0"] = TYPE`.

        Hooks would be such a table, too: a classifier has none.
        """
        lists = ast.unparse(target) in ("__parameters__", "__buffers__")
        types = isinstance(target, ast.Subscript) and ast.unparse(target.value) == "__annotations__"
        if lists and isinstance(value, ast.List):
            self._expression(value)
        elif types and isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
            self._expression(target.slice)
            self._type(value)
        else:
            raise self._refusal(target)

    def _function(self, item: ast.FunctionDef) -> None:
        given = item.args
        if not _is_ordinary(item) or given.vararg or given.kwarg or given.posonlyargs:
            raise self._refusal(item)
        if item.name.startswith("__"):  # __setstate__ and its like
            raise self._refusal(item, "a TorchScript method that runs when loaded")
        self._variables = {}
        for argument in (*given.args, *given.kwonlyargs):
            if argument.annotation is None:
                raise self._refusal(item)
            self._type(argument.annotation)
            kind = ast.unparse(argument.annotation)
            owner = kind if kind in self._program.classes else ""
            self._assign(ast.Name(argument.arg), owner)
        for default in (*given.defaults, *given.kw_defaults):
            if default is not None:
                self._expression(default)
        if item.returns is not None:
            self._type(item.returns)
        self._statements(item.body)

    def _statements(self, body: list[ast.stmt]) -> None:
        for statement in body:
            if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
                targets = statement.targets[0]
                kind = self._expression(statement.value)
                for part in targets.elts if isinstance(targets, ast.Tuple) else [targets]:
                    self._assign(part, "" if isinstance(targets, ast.Tuple) else kind)
            elif isinstance(statement, ast.AnnAssign):
                self._type(statement.annotation)
                if statement.value is not None:
                    self._expression(statement.value)
                self._assign(statement.target, "")
            elif isinstance(statement, ast.Expr):
                self._expression(statement.value)
            elif isinstance(statement, ast.Return):
                if statement.value is not None:
                    self._expression(statement.value)
            elif isinstance(statement, ast.If):
                self._expression(statement.test)
                self._branches(statement.body, statement.orelse)
            elif isinstance(statement, ast.For) and not statement.orelse:
                self._expression(statement.iter)
                self._assign(statement.target, "")
                self._branches(statement.body)
            elif not isinstance(statement, ast.Pass):
                raise self._refusal(statement)

    def _branches(self, *bodies: list[ast.stmt]) -> None:
        """A name that one branch gives means something else in the others."""
        before = self._variables
        after: dict[str, str] = {}
        for body in bodies:
            self._variables = dict(before)
            self._statements(body)
            after |= dict.fromkeys(self._variables.keys() - before.keys(), "")
        # What was a module stays one only where no branch gave the name to something else.
        self._variables = {**after, **before}

    def _assign(self, target: ast.expr, kind: str) -> None:
        if not isinstance(target, ast.Name) or target.id.startswith("__"):
            raise self._refusal(target)
        known = self._variables.setdefault(target.id, kind)
        if known != kind:  # PyTorch writes each module into a variable of its own
            raise self._refusal(target, "a TorchScript variable of two kinds")

    def _type(self, node: ast.expr) -> None:
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            self._type(node.value)
            inner = node.slice
            for part in inner.elts if isinstance(inner, ast.Tuple) else [inner]:
                self._type(part)
        elif ast.unparse(node) not in {*_TYPES, *self._program.classes}:
            raise self._refusal(node)

    # expressions; each returns the class of the module that it is, or ""

    def _expression(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name):
            if node.id not in self._variables and node.id not in ("inf", "nan"):
                raise self._refusal(node)
            return self._variables.get(node.id, "")
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        parts: list[ast.expr] = []
        if isinstance(node, ast.Constant):
            self._constant(node)
        elif isinstance(node, ast.Tuple | ast.List):
            parts = node.elts
        elif isinstance(node, ast.Subscript):
            parts = [node.value, node.slice]
        elif isinstance(node, ast.UnaryOp):
            parts = [node.operand]
        elif isinstance(node, ast.IfExp):
            parts = [node.test, node.body, node.orelse]
        else:
            raise self._refusal(node)
        for part in parts:
            self._expression(part)
        return ""

    def _constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, str):
            check_name(value, self._member)
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise self._refusal(node)
        elif value is not None and not isinstance(value, bool | int):
            raise self._refusal(node)

    def _attribute(self, node: ast.Attribute) -> str:
        """An attribute of a module or value, a constant of the archive, or a function of it."""
        path = ast.unparse(node)
        if path in self._program.functions or re.fullmatch(r"CONSTANTS\.c\d+", path):
            return ""
        return self._member_of(self._expression(node.value), node.attr, node)

    def _member_of(self, owner: str, name: str, node: ast.expr) -> str:
        if not owner or name not in self._program.classes[owner]:
            raise self._refusal(node)
        kind = ast.unparse(self._program.classes[owner][name])
        return kind if kind in self._program.classes else ""

    def _call(self, node: ast.Call) -> str:
        function, arguments = node.func, list(node.args)
        name = function.id if isinstance(function, ast.Name) else ""
        if node.keywords:
            raise self._refusal(node)
        if name in ("annotate", "unchecked_cast") and arguments:
            self._type(arguments.pop(0))
        kinds = [self._expression(argument) for argument in arguments]
        if name == "getattr":
            if len(arguments) != 2 or not isinstance(arguments[1], ast.Constant):
                raise self._refusal(node)
            return self._member_of(kinds[0], str(arguments[1].value), node)
        self._callee(function, name, arguments)
        return ""

    def _callee(self, function: ast.expr, name: str, arguments: list[ast.expr]) -> None:
        path = ast.unparse(function).split(".")
        if name:  # a known one, or a variable that holds a function of the archive
            known = name in _FUNCTIONS or (name in self._variables and re.fullmatch(r"_\d+", name))
        elif path[0] == "torch" or path[:2] == ["ops", "aten"]:
            known = len(path) == (2 if path[0] == "torch" else 3) and path[-1] in _OPERATORS
        elif path[:2] == ["ops", "prim"]:
            known = path[2:] == ["NumToTensor"]
            if path[2:] == ["RaiseException"]:
                kind = arguments[1] if len(arguments) == 2 else None
                text = kind.value if isinstance(kind, ast.Constant) else ""
                known = bool(re.fullmatch(r"builtins\.[A-Za-z]+Error", str(text)))
        elif path[0] == "__torch__":
            known = ".".join(path) in self._program.functions
        else:  # a method: of a class of the archive, or PyTorch would look for an operator
            owner = self._expression(function.value) if isinstance(function, ast.Attribute) else ""
            method = function.attr if isinstance(function, ast.Attribute) else ""
            known = bool(owner) and method in self._program.methods[owner]
        if not known:
            raise self._refusal(function, "a TorchScript operator that a classifier does not need")


def _is_ordinary(item: ast.ClassDef | ast.FunctionDef) -> bool:
    return not item.decorator_list and not getattr(item, "type_params", None)
