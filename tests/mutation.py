"""mutmut, which leaves decorated functions alone, with the checks made plain functions for it.

`@check(...)` above a function becomes `name = check(...)(name)` behind it. Arguments are mutmut's:
`python tests/mutation.py run "ftcheck.checks.labels*"`.
"""

from __future__ import annotations

from typing import Any

import libcst as cst
import libcst.matchers as m
import mutmut.__main__
from mutmut.mutation.file_mutation import MutatedFile, mutate_file_contents

_REGISTERED = m.Decorator(decorator=m.Call(func=m.Name("check")))


def registered_behind(code: str) -> str:
    """Source whose checks are registered behind their functions, not by a decorator above them."""
    module = cst.parse_module(code)
    body: list[Any] = []
    for statement in module.body:
        body.append(statement)
        if isinstance(statement, cst.FunctionDef) and len(statement.decorators) == 1:
            (decorator,) = statement.decorators
            if m.matches(decorator, _REGISTERED):
                body[-1] = statement.with_changes(decorators=[])
                call = cst.Call(func=decorator.decorator, args=[cst.Arg(statement.name)])
                target = cst.AssignTarget(statement.name)
                assigned = cst.Assign(targets=[target], value=call)
                body.append(cst.SimpleStatementLine([assigned]))
    return module.with_changes(body=body).code


def _mutated(filename: str, code: str, *covered: Any) -> MutatedFile:
    return mutate_file_contents(filename, registered_behind(code), *covered)


if __name__ == "__main__":
    mutmut.__main__.mutate_file_contents = _mutated
    mutmut.__main__.cli()
