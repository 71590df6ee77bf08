"""Runs every benchmark, one after the other, each in a process of its own."""

import pkgutil
import subprocess
import sys

import benchmarks

HELPERS = {
    "__main__", "learning_data", "learning_figures", "learning_models", "policies_data", "policies_runs", "ppo_ours",
    "ppo_peer", "servers", "bare_loop",
}  # fmt: skip


def main() -> int:
    names = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name not in HELPERS)
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
