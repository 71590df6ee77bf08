"""Runs every benchmark, one after the other, each in a process of its own."""

import pkgutil
import subprocess
import sys

import benchmarks

HELPERS = {
    "__main__", "learning_data", "learning_figures", "learning_models", "policies_data", "policies_runs", "ppo_ours",
    "ppo_peer", "servers", "bare_loop", "data_rows", "data_texts", "figures",
}  # fmt: skip
#: What `benchmarks.data` runs, which is run here.
PARTS = {"data_export", "data_import", "data_loop", "queue"}


def main() -> int:
    modules = {module.name for module in pkgutil.iter_modules(benchmarks.__path__)}
    names = sorted(modules - HELPERS - PARTS)
    failed = []
    for name in names:
        print(f"\n=== python -m benchmarks.{name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:
            failed.append(name)
    if failed:
        print(f"\nfailed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
