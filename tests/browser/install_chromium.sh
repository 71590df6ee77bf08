#!/bin/sh
# Makes sure that the browser tests have a Chromium: PLACKETT_CHROMIUM, else Debian's, else Playwright's own.
set -eu
cd "$(dirname "$0")/../.."

if [ -n "${PLACKETT_CHROMIUM:-}" ]; then
    [ -x "$PLACKETT_CHROMIUM" ] && exit 0
    echo "plackett: PLACKETT_CHROMIUM=$PLACKETT_CHROMIUM is no program." >&2
    exit 1
fi
[ -x /usr/bin/chromium ] && exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "Installing chromium …"
    apt-get update
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium
    exit 0
fi
.venv/bin/python -m playwright install chromium
