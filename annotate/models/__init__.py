"""The record of human judgement. Rules that span rows or tables are triggers and composite keys: see the migrations."""

from annotate.models.operations import DatabaseEpoch, IdempotencyKey
from annotate.models.people import ApiToken, OneTimeLink, User
from annotate.models.projects import Counter, Membership, Project, ProjectVersion, ReadingReceipt, Role
from annotate.models.prompts import (
    Demonstration,
    IdentityLeak,
    ImportBatch,
    ImportUpload,
    Prompt,
    Response,
    Split,
    SplitGroup,
)
from annotate.models.rankings import Change, Entry, FeedBlock, Ranking
from annotate.models.snapshots import Snapshot, SnapshotRanking
from annotate.models.tasks import Draft, Lease, QueueCursor, RankingTask, Skip, Slot, TaskFlag, TaskResponse
from annotate.models.webhooks import Webhook, WebhookDelivery

__all__ = [
    "ApiToken",
    "Change",
    "Counter",
    "DatabaseEpoch",
    "Demonstration",
    "Draft",
    "Entry",
    "FeedBlock",
    "IdempotencyKey",
    "IdentityLeak",
    "ImportBatch",
    "ImportUpload",
    "Lease",
    "Membership",
    "OneTimeLink",
    "Project",
    "ProjectVersion",
    "Prompt",
    "QueueCursor",
    "Ranking",
    "RankingTask",
    "ReadingReceipt",
    "Response",
    "Role",
    "Skip",
    "Slot",
    "Snapshot",
    "SnapshotRanking",
    "Split",
    "SplitGroup",
    "TaskFlag",
    "TaskResponse",
    "User",
    "Webhook",
    "WebhookDelivery",
]
