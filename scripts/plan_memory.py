"""Says how much memory the local steps of a round need, for each way to execute them; no data are read, nothing is run.

python scripts/plan_memory.py --config=configs/methods/fedsparsify_global.py --config.execution.steps_per_chunk=1

Rows are the ways to train the clients of a round (one after another, two at a time, all at once), in float32 and
bfloat16, with activations kept for the gradient or computed again. The plan is XLA's, for the device that is there.
"""

from fedsparse_jax import cli

CONFIG = cli.config_flag()


def main():
    from fedsparse_jax.studies.memory_plan import plan_table, plans

    cli.cache_compilations()
    found = []
    for clients, precision, plan in plans(CONFIG.value):
        print(f"{clients}, {precision}: {plan.total / 1e9:.2f} GB", flush=True)
        found.append((clients, precision, plan))
    print(f"\n{plan_table(found)}")


if __name__ == "__main__":
    cli.run_main(main)
