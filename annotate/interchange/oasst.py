"""Open-Assistant conversation trees, one a line, to native records.

A group is the assistant replies to one prompter message. A group of two or more, all with a rank, becomes one ranking
of the annotator `oasst consensus` (the published ranks are already merged): prompt = the path from the root to that
message, split group = the tree, external id = that message's id. Equal ranks are a tie. Responses are listed by their
ids, which are random, so that the order says nothing of the ranks.

Left out, and reported as no fault: deleted messages with all that hangs on them, groups of one, groups without ranks,
and groups in which some reply has no rank: it arrived after the others were ranked, so that nobody put it below them.
The last two become tasks to be ranked with `include_unranked`.

Source: https://github.com/LAION-AI/Open-Assistant, docs/docs/data/schemas.mdx (ExportMessageTree)
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, NamedTuple

from annotate.interchange.native import record_from_object
from annotate.interchange.records import BadRecord, RecordError, parse_json
from annotate.interchange.streams import Read, Source, read_records

FORMAT = "oasst"
ANNOTATOR = "oasst consensus"
ROLES = {"prompter": "user", "assistant": "assistant"}


def read(source: Source, *, include_unranked: bool = False) -> Read:
    """Yield one record per ranked group of the trees, in constant memory.

    Args:
        source: a file of trees, one a line.
        include_unranked: also yield groups without, or with only some, ranks, as tasks to be ranked.

    Raises:
        FileError: the file as a whole cannot be read.
    """

    def groups(text: str, line: int, item: int | None) -> Read:
        tree = parse_json(text)
        if not isinstance(tree, dict) or not isinstance(tree.get("message_tree_id"), str):
            raise RecordError("not a conversation tree: message_tree_id is missing")
        for node in _walk(tree.get("prompt"), line, item):
            if isinstance(node, BadRecord):
                yield node
            elif node.replies:
                try:
                    yield _group(node, tree["message_tree_id"], line, item, include_unranked=include_unranked)
                except RecordError as error:
                    yield BadRecord(line, f"replies to {node.id}: {error}", item)

    return read_records(source, groups)


class _Node(NamedTuple):
    """A prompter message with what led to it and the assistant replies that are not deleted."""

    id: str
    path: list[dict[str, str]]
    replies: list[dict[str, Any]]


def _walk(root: Any, line: int, item: int | None) -> Iterator[_Node | BadRecord]:
    """Yield every prompter message of a tree, parents first; a message that cannot be read is left out with its
    replies."""
    waiting: list[tuple[Any, list[dict[str, str]]]] = [(root, [])]
    while waiting:
        message, before = waiting.pop()
        try:
            path = [*before, _as_message(message)]
            replies = _replies(message)
        except RecordError as error:
            yield BadRecord(line, str(error), item)
            continue
        if message.get("deleted") is True:
            yield BadRecord(line, f"message {message['message_id']} is deleted", item, fault=False)
            continue
        waiting += ((reply, path) for reply in reversed(replies))
        if message["role"] == "prompter":
            answers = [reply for reply in replies if reply.get("role") == "assistant"]
            yield _Node(message["message_id"], path, [reply for reply in answers if reply.get("deleted") is not True])


def _as_message(message: Any) -> dict[str, str]:
    if not isinstance(message, dict) or not isinstance(message.get("message_id"), str):
        raise RecordError("a message without message_id")
    role, text = message.get("role"), message.get("text")
    if not isinstance(text, str):
        raise RecordError(f"message {message['message_id']} has no text")
    if not isinstance(role, str) or role not in ROLES:
        raise RecordError(f"message {message['message_id']} has the role {role!r}, not {' / '.join(ROLES)}")
    return {"role": ROLES[role], "content": text}


def _replies(message: dict[str, Any]) -> list[dict[str, Any]]:
    replies = message.get("replies") or []
    if not isinstance(replies, list) or not all(isinstance(reply, dict) for reply in replies):
        raise RecordError(f"message {message['message_id']}: replies must be a list of messages")
    return replies


def _group(node: _Node, tree_id: str, line: int, item: int | None, *, include_unranked: bool) -> Any:
    """Return the record of one group, or the report that leaves it out."""
    for reply in node.replies:
        _as_message(reply)
    ranked = sum(reply.get("rank") is not None for reply in node.replies)
    complete = ranked == len(node.replies)
    why = "only one reply" if len(node.replies) == 1 else "no ranks" if ranked == 0 else "only some replies have a rank"
    if len(node.replies) == 1 or not (complete or include_unranked):
        return BadRecord(line, f"replies to {node.id}: {why}", item, fault=False)
    replies = sorted(node.replies, key=lambda reply: str(reply["message_id"]))
    found = {
        "external_id": node.id,
        "split_group": tree_id,
        "prompt": node.path,
        "responses": [_as_response(reply) for reply in replies],
        "lang": replies[0].get("lang"),
    }
    if complete:
        found |= {"ranking": _tiers(replies), "annotator": ANNOTATOR, "annotator_kind": "imported"}
    return record_from_object(found, line=line, item=item)


def _as_response(reply: dict[str, Any]) -> dict[str, Any]:
    model = reply.get("model_name") if reply.get("synthetic") else "human"
    return {"id": reply["message_id"], "text": reply["text"], "model": model}


def _tiers(replies: list[dict[str, Any]]) -> list[list[str]]:
    tiers: dict[int, list[str]] = defaultdict(list)
    for reply in replies:
        if type(reply["rank"]) is not int:
            raise RecordError(f"the rank {reply['rank']!r} is not a whole number")
        tiers[reply["rank"]].append(reply["message_id"])
    return [tiers[rank] for rank in sorted(tiers)]
