# Copyright: (c) 2026, vmbackup.esx contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The error boundary and the one branch on check mode.

Invariant: fail_json and exit_json stand here and nowhere else; in check mode a plan is shown and never applied.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Mapping, Optional

from ansible.module_utils.basic import AnsibleModule

from ..core.errors import VmbackupError
from ..core.termination import Terminated, ignore_signals, raise_on_signals

Params = Mapping[str, Any]
Result = Dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What a module would do, and why.

    changed: whether apply would change anything.
    reason: one sentence for people.
    result: what is returned in check mode, and the ground that apply's result is laid on.
    before, after: what --diff renders; None where there is nothing to compare.
    apply: does it; returns additions to the result; may return its own `changed`. None when nothing is to be done.
    """

    changed: bool
    reason: str
    result: Result = field(default_factory=dict)
    before: Optional[Any] = None
    after: Optional[Any] = None
    apply: Optional[Callable[[], Result]] = None


def run(
    argument_spec: Result,
    make_plan: Callable[[Params], Plan],
    on_failure: Optional[Callable[[Params, str], None]] = None,
    **spec: Any,
) -> None:
    """Run a module: plan, then apply unless in check mode; turn every failure into a result that names its code.

    SIGTERM, SIGINT and SIGHUP are failures, too. on_failure: releases what the module was handed (a snapshot), after any
    failure outside check mode; it gets the failure's code, and a failure of its own is told beside the first one, never
    instead of it. What the plan knew is in the result of a failure, too.
    """
    module = AnsibleModule(argument_spec=argument_spec, supports_check_mode=True, **spec)
    ground: Result = {}
    try:
        raise_on_signals()
        plan = make_plan(module.params)
        ground = plan.result
        answer: Result = {"changed": plan.changed, "reason": plan.reason, "planned": module.check_mode, **plan.result}
        if plan.apply is not None and not module.check_mode:
            answer.update(plan.apply())
        if plan.before is not None or plan.after is not None:
            answer["diff"] = {"before": plan.before or "", "after": plan.after or ""}
    except (Exception, Terminated) as error:  # the boundary
        failure = {**ground, **_told(error.told() if isinstance(error, Terminated) else error)}
        if on_failure is not None and not module.check_mode:
            failure.update(_release(on_failure, module.params, failure["code"]))
        module.fail_json(**failure)
    module.exit_json(**answer)


def _told(error: Exception) -> Result:
    if isinstance(error, VmbackupError):
        return {"msg": str(error), "code": error.code, "hint": error.hint}
    return {
        "msg": "unexpected {}: {}".format(type(error).__name__, error),
        "code": "internal",
        "hint": "This is a defect of vmbackup.esx; please report it with the trace.",
        "exception": traceback.format_exc(),
    }


def _release(on_failure: Callable[[Params, str], None], params: Params, code: str) -> Result:
    ignore_signals()
    try:
        on_failure(params, code)
    except Exception as error:  # the boundary, for what is done on the way out
        return {"release_failed": _told(error)["msg"]}
    return {}
