"""How fast the simulator is: virtual seconds per CPU second, the checker's time apart.

    python benchmarks/sim_speed.py [--seeds N] [--seconds S]

Three nodes and two groups, with and without disks and faults, under the default load and with one
client. Every row plays the same seeds; CPU time is the process's own. The virtual seconds counted
are those of the clients' work and of what follows it until the run ends.
"""

from __future__ import annotations

import argparse
import time

from jepsen_like.sim.faults import FAMILIES
from jepsen_like.sim.run import Options, run


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
    print("mode     faults  clients  virtual s/CPU s  op/virtual s  callbacks/virtual s  checker")
    for clients in (Options().clients, 1):
        for durable in (True, False):
            for families in ((), FAMILIES):
                options = Options(
                    seconds=arguments.seconds, durable=durable, families=families, clients=clients
                )
                speed, load, callbacks, checker = measure(options, range(arguments.seeds))
                print(
                    f"{'durable' if durable else 'memory':<8} {'all' if families else 'none':<7}"
                    f" {clients:>7}  {speed:>15.1f}  {load:>12.0f}  {callbacks:>19.0f}"
                    f"  {checker:>6.1%}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
