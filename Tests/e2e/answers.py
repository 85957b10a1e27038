"""What counts as a right answer to a question of data/default_model_questions.json."""

import json


def problem(expect, reasoning, content, calls):
    """Says what is wrong with an answer, or returns None. `calls` are [{"name", "arguments"}] with parsed arguments."""
    for part in expect.get("contains", []):
        if part not in content:
            return f"{part!r} is missing"
    if "equals" in expect and content != expect["equals"]:
        return f"expected {expect['equals']!r}"
    if "ends" in expect and not content.rstrip(".").endswith(" " + expect["ends"]):
        return f"does not end with {expect['ends']!r}"
    for part in expect.get("reasoning_contains", []):
        if part not in (reasoning or ""):
            return f"{part!r} is missing in the reasoning"
    if "json" in expect:
        try:
            if json.loads(content) != expect["json"]:
                return f"expected {expect['json']}"
        except ValueError:
            return "not JSON"
    if calls != expect.get("tool_calls", []):
        return f"expected calls {expect.get('tool_calls', [])}"
    return None
