"""Re-pricing booked charges: charges per second, looked at (dry run, unchanged) and written.

    DATABASE_URL=postgresql://… python benchmarks/repricing.py [--traces 10000]

Works in a database of its own, which it creates beside the one of DATABASE_URL and drops again. The
charges are those of benchmarks/attribution.py; a list of own prices changes every one of them.
"""

import argparse
import os
import time

from benchmarks.own_database import own_database

DATABASE = "costapp_bench_repricing"
OWN = "model,input,output\n*,1.25,3.75\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, default=10_000)
    options = parser.parse_args()
    with own_database(DATABASE):
        measure(options.traces)


def measure(traces: int) -> None:
    from benchmarks.attribution import _set_up, generate

    project_id = _set_up()
    from costapp.models import Project
    from costapp.services.drain import drain
    from costapp.services.import_prices import import_csv
    from costapp.services.reprice import Repriced, reprice
    from costapp.storage.connection import connect
    from costapp.storage.spans import insert_spans

    project = Project.objects.get(pk=project_id)

    def timed(label: str, *, dry_run: bool) -> Repriced:
        start, cpu = time.perf_counter(), time.process_time()
        result = reprice(conn, project, dry_run=dry_run)
        wall_s, cpu_s = time.perf_counter() - start, time.process_time() - cpu
        rate = result.requests / wall_s
        print(f"{label}: {result.changed:,} of {result.requests:,} changed, {rate:,.0f} charges/s, {cpu_s:.1f} s here")
        return result

    with connect(os.environ["DATABASE_URL"]) as conn:
        insert_spans(conn, project_id, [span for trace in generate(traces, seed=1) for span in trace])
        drain(conn)
        timed("nothing to change", dry_run=False)
        import_csv(project, OWN)
        timed("dry run", dry_run=True)
        applied = timed("applied", dry_run=False)
        import_csv(project, OWN.replace("1.25", "1.50"))
        again = timed("applied again", dry_run=False)
        assert applied.changed == again.changed == applied.requests


if __name__ == "__main__":
    main()
