"""Run folders of earlier versions, brought up to date: renamed keys of a stored config, renamed folders.

A stored config is a plain dict. Keys that a version did not have yet are filled in by `config.saved_runs`.
"""

from pathlib import Path
from typing import Any

RENAMED_KEYS = {  # old -> new, since 0.2
    "client.towards": "client.proximal_anchor",
    "pruning.over": "pruning.scored_clients",
    "pruning.gate": "hooks.min_accuracy",
    "pruning.rewind": "hooks.reset_to_initial",
    "wire.mode": "communication.mode",
    "wire.dtype": "communication.dtype",
    "wire.feedback": "communication.feedback",
}
RENAMED_VALUES = {("communication", "mode"): {"through": "transmit"}}
CLIENT_RECORDS, OLD_CLIENT_RECORDS = "client_records", "held"


def upgrade_stored_config(stored: dict[str, Any]) -> dict[str, Any]:
    """The config of a run folder in today's words.

    >>> old = {"client": {"towards": "zero"}, "wire": {"mode": "through"}, "pruning": {"placement": "init+arrival"}}
    >>> new = upgrade_stored_config(old)
    >>> new["client"], new["communication"], new["pruning"], new["hooks"]
    ({'proximal_anchor': 'zero'}, {'mode': 'transmit'}, {'placement': 'init'}, {'name': 'lottery_tickets'})
    """
    config = {key: dict(value) if isinstance(value, dict) else value for key, value in stored.items()}
    if "arrival" in config.get("pruning", {}).get("placement", ""):
        places = [place for place in config["pruning"]["placement"].split("+") if place != "arrival"]
        config["pruning"]["placement"] = "+".join(places) or "none"
        config["hooks"] = {"name": "lottery_tickets"}
    for old, new in RENAMED_KEYS.items():
        (old_section, old_key), (section, key) = old.split("."), new.split(".")
        if old_key in config.get(old_section, {}):
            value = config[old_section].pop(old_key)
            if section != "hooks" or "hooks" in config:  # only a method with that hook has its options
                config.setdefault(section, {})[key] = RENAMED_VALUES.get((section, key), {}).get(value, value)
    if "privacy" in config and "unit" not in config["privacy"]:
        config["privacy"] |= {"unit": "scan", "noise_from_seed": config["privacy"].get("noise", 0) > 0}
    if config.get("method") == "salient_grads" and config.get("pruning", {}).get("criterion") == "snip":
        config["pruning"]["criterion"] = "salient_grads"
    if "pruning" in config:
        config.setdefault("hooks", {"name": "none"})
    return {key: value for key, value in config.items() if key != "wire" or value}


def upgrade_folder(workdir: Path) -> None:
    """Gives the folder's parts today's names."""
    old = workdir / OLD_CLIENT_RECORDS
    if old.is_dir() and not (workdir / CLIENT_RECORDS).exists():
        old.rename(workdir / CLIENT_RECORDS)
