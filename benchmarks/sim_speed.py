"""How fast the simulator is: virtual seconds per CPU second, the checker's time apart.

    python benchmarks/sim_speed.py [--seeds N] [--seconds S]

Three nodes and two groups, with and without disks and faults, under three loads: as drawn from the
seed (what ``python -m jepsen_like sim`` plays), six busy clients, and one. Every row plays the same
seeds; CPU time is the process's own, so that other work on the machine matters little. A run's
virtual seconds include the few after the last fault in which it is seen to recover.
"""

from __future__ import annotations

import argparse
import time

from jepsen_like.sim.faults import FAMILIES
from jepsen_like.sim.run import Options, run

LOADS = {"default": (6, None), "busy": (6, 0.04), "one": (1, 0.04)}
"""Name -> (clients, mean pause of each between two operations; ``None``: drawn from the seed)."""


def measure(options: Options, seeds: range) -> tuple[float, float, float, float]:
    """(virtual s per CPU s, operations and callbacks per virtual s, share of the checker)."""
    cpu = virtual = checking = 0.0
    operations = callbacks = 0
    for seed in seeds:
        started = time.process_time()
        outcome = run(seed, options)
        spent = time.process_time() - started
        if outcome.violations:
            print(f"seed {seed}: {outcome.violations[0].line}  [{options.command(seed)}]")
        cpu += spent - outcome.check_s
        checking += outcome.check_s
        virtual += outcome.virtual_s
        operations += outcome.operations
        callbacks += outcome.callbacks
    return virtual / cpu, operations / virtual, callbacks / virtual, checking / (cpu + checking)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="speed of the simulator")
    parser.add_argument("--seeds", type=int, default=5, help="runs per row")
    parser.add_argument("--seconds", type=float, default=30.0, help="virtual seconds with faults")
    arguments = parser.parse_args()
    run(0, Options(seconds=2.0))  # imports and caches
    print("load      mode     faults  virtual s/CPU s  op/virtual s  callbacks/virtual s  checker")
    for load, (clients, think_s) in LOADS.items():
        for durable in (True, False):
            for families in ((), FAMILIES):
                options = Options(
                    seconds=arguments.seconds,
                    durable=durable,
                    families=families,
                    clients=clients,
                    think_s=think_s,
                )
                speed, operations, callbacks, checker = measure(options, range(arguments.seeds))
                print(
                    f"{load:<9} {'durable' if durable else 'memory':<8}"
                    f" {'all' if families else 'none':<6}  {speed:>15.1f}  {operations:>12.0f}"
                    f"  {callbacks:>19.0f}  {checker:>6.1%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
