"""Audits a finished run: how well can people be told from the models it has kept? Writes attack.json and the report.

python scripts/audit_run.py --workdir=runs/leakage-95
python scripts/audit_run.py --workdir=runs/quickstart --threat=client --attacks=error_threshold,white_box

Attacks that need shadow models are refused without --shadows=FOLDER, which scripts/train_shadows.py fills.
"""

from pathlib import Path

from absl import flags

from fedsparse_jax import cli

WORKDIR = cli.workdir_flag("Folder of the run that is attacked.")
THREAT = flags.DEFINE_enum("threat", "outsider", ["outsider", "client", "server"], "Who attacks.")
SHADOWS = flags.DEFINE_string("shadows", "", "Folder of shadow models.")
WHICH = flags.DEFINE_string("which", "last", "Model attacked: best (on validation), last, or the number of a round.")
OTHER = flags.DEFINE_string("other", "", "A run on the same people with another seed, for a control.")
ATTACKS = flags.DEFINE_list("attacks", [], "Attacks (default: all).")
KNOWN = flags.DEFINE_float("known", 0.5, "Share of the members whom an outsider or the server knows.")
MODELS = flags.DEFINE_integer("models", 5, "Communicated models that an attacker keeps, at most.")
DRAWS = flags.DEFINE_integer("draws", 1000, "Draws of the bootstrap.")


def main():
    from fedsparse_jax.config import chosen_round
    from fedsparse_jax.reporting import audit_tables, markdown_table, write_report
    from fedsparse_jax.reporting.audit_tables import AUDIT_HEAD
    from fedsparse_jax.studies import AuditOptions, audit_run

    cli.cache_compilations()
    workdir, folder = Path(WORKDIR.value), lambda flag: Path(flag.value) if flag.value else None
    audit = audit_run(
        workdir,
        THREAT.value,
        shadows=folder(SHADOWS),
        other=folder(OTHER),
        round_=chosen_round(workdir, WHICH.value),
        options=AuditOptions(KNOWN.value, MODELS.value, tuple(ATTACKS.value), DRAWS.value),
        progress=cli.show_progress,
    )
    for title, rows in audit_tables(audit)[: 1 + len(audit["controls"])]:  # each pair is in the report
        print(title)
        print(markdown_table(AUDIT_HEAD, rows))
    print(f"Report: {write_report(workdir)}")


if __name__ == "__main__":
    cli.run_main(main)
