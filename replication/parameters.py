"""Papermill parameters that cannot lie.

papermill only warns of a parameter that a notebook does not have, and writes any value into it. A
notebook that calls `check_parameters` right behind its `parameters` cell fails there instead, with
the parameter's name, before anything runs.
"""

import ast
from collections.abc import Collection
from typing import Any

MARK = "# Parameters"  # first line of a notebook's own parameters cell, and of the one papermill adds
TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict}


def check_parameters(namespace: dict[str, Any], **choices: Collection[str]) -> None:
    """Refuse an unknown parameter, a value of another type, or one that is not among its choices.

    Args:
        namespace: the notebook's `globals()`. Its parameters cell begins with `# Parameters` and
            declares each as `name: type = default`; papermill's cell, if any, assigns some.
        choices: allowed values by parameter.

    Raises:
        ValueError: everything that is wrong, a line each.
    """
    sources = [source for source in namespace.get("In", []) if source.lstrip().startswith(MARK)]
    declared: dict[str, str] = {}
    injected: list[str] = []
    for source in sources:
        annotated, assigned = _names(source)
        if annotated:  # the latest run of the notebook's own cell counts
            declared, injected = annotated, []
        else:
            injected = assigned
    if not declared and not sources:
        # Run without history (nbval does), cells leave no source behind; nothing was injected then.
        hints = namespace.get("__annotations__", {})
        declared = {name: kind for name, kind in hints.items() if kind in TYPES} or {
            name: kind.__name__ for name, kind in hints.items() if getattr(kind, "__name__", "") in TYPES
        }
    if not declared:
        raise ValueError(
            f"No parameters cell was run before this one; expected one that begins with {MARK!r} and "
            "declares each parameter as name: type = default. Run the notebook from its top."
        )
    problems = [
        f"unknown parameter {name!r}; expected one of {', '.join(declared)}"
        for name in injected
        if name not in declared
    ]
    for name, kind in declared.items():
        value, wanted = namespace[name], TYPES[kind]
        fits = isinstance(value, wanted) or (wanted is float and isinstance(value, int))
        if not fits or (isinstance(value, bool) and wanted is not bool):
            problems.append(f"parameter {name} = {value!r} is a {type(value).__name__}; expected {kind}")
        elif name in choices and value not in choices[name]:
            problems.append(f"parameter {name} = {value!r}; expected one of {_shown(choices[name])}")
    if problems:
        raise ValueError("\n".join(problems))


def _names(source: str) -> tuple[dict[str, str], list[str]]:
    """Declared names with their types, and plainly assigned ones, of one cell."""
    lines = [line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))]
    annotated, assigned = {}, []
    for node in ast.parse("\n".join(lines)).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            kind = ast.unparse(node.annotation)
            if kind not in TYPES:
                raise ValueError(
                    f"parameter {node.target.id} is declared as {kind}; expected {', '.join(TYPES)}"
                )
            annotated[node.target.id] = kind
        elif isinstance(node, ast.Assign):
            assigned += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return annotated, assigned


def _shown(values: Collection[str]) -> str:
    shown = [repr(v) for v in values]
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "")
