"""Describe commands as plain JSON."""

from boincvm.controller.commands.command import OUTPUT_CAPACITY, Answer, Command
from boincvm.json_value import Json


def table(command: Command, *, with_output: bool = False) -> dict[str, Json]:
    """Describe a command as docs/controller-api.md says."""
    return {
        "id": command.id,
        "argv": list(command.request.argv),
        "is_finished": command.is_finished,
        "wanted": command.wanted,
        "submitted_at": command.submitted_at,
        "answers": {
            name: _answer(answer, with_output=with_output)
            for name, answer in command.answers.items()
        },
    }


def _answer(answer: Answer, *, with_output: bool) -> dict[str, Json]:
    result = answer.result
    document: dict[str, Json] = {
        "state": answer.state.name.lower(),
        "why": answer.why,
        "code": result.code if result else None,
        "signal": result.signal if result else None,
        "error": result.error if result else "",
        "hint": result.hint if result else "",
        "timed_out": result.timed_out if result else False,
        "resources": dict(result.resources) if result else {},
        "progress": answer.progress,
        **{name: log.end for name, log in answer.outputs.items()},
    }
    if with_output:
        document["output"] = {
            name: log.read(0, OUTPUT_CAPACITY)[1].decode("utf-8", "replace")
            for name, log in answer.outputs.items()
        }
    return document
