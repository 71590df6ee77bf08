"""The end of ``recipes.sft`` and ``recipes.dpo`` alike: report, page, and the model as an ordinary folder."""

from typing import Any

from training.core.files import shown_name, write_json
from training.core.language import LanguageModel
from training.core.licences import licence_of
from training.core.policy_cards import policy_card
from training.core.policy_saving import save_policy
from training.core.report_page import write_report_files
from training.core.runfolder import REPORT_NAME
from training.core.sharding import gather_model
from training.core.tokens import ChatEncoder
from training.recipes.configs import CommonConfig, Config, to_values
from training.recipes.launch import Session


def publish_policy(
    session: Session[Config],
    model: LanguageModel,
    encoder: ChatEncoder,
    *,
    kind: str,
    report: dict[str, Any],
    data_sha256: str,
    stop_ids: frozenset[int],
) -> None:
    """Write report.json with its page, DIR/adapter with LoRA, and DIR/model, last; all processes call it.

    Args:
        stop_ids: what ends a response when others generate with the model.
    """
    config = session.config
    assert isinstance(config, CommonConfig)
    if config.shard:
        gather_model(model, session.world)
    if not session.world.is_main:
        return
    name = shown_name(config.model)
    write_report_files(session.folder, report, title=f"{kind.upper()} policy from {name}")
    write_json(session.folder / REPORT_NAME, report)
    card = policy_card(
        kind=kind, base=config.model, report=report, config=to_values(config), data_sha256=data_sha256,
        licence=licence_of(config.model),
    )  # fmt: skip
    adapter = session.folder / "adapter" if config.lora_rank else None
    save_policy(model, encoder.tokenizer, session.folder / "model", card=card, adapter=adapter, stop_ids=stop_ids)
