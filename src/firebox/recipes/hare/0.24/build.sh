# Hare ships its standard library as source. What it is compiled into belongs to the place where it was made, so that is where
# programs get a copy of it.
cat > /usr/local/bin/hare <<'END'
#!/bin/sh
if [ "${1-}" = build ] && [ ! -e /tmp/hare ]; then cp -r /opt/hare-cache /tmp/hare; fi
exec /usr/bin/hare "$@"
END
chmod 755 /usr/local/bin/hare
mkdir -p "$HOME"
cd "$HOME"
cat > main.ha <<'END'
use bufio;
use fmt;
use io;
use math;
use memio;
use os;
use sort;
use strconv;
use strings;
use time;

export fn main() void = void;
END
HARECACHE=/tmp/hare /usr/bin/hare build -o program main.ha
./program
find /tmp/hare -type f \( -name '*.tmp' -o -name '*.log' -o -name '*.lock' \) -delete
find /tmp/hare -mindepth 1 -maxdepth 1 ! -name usr -exec rm -rf {} +
mv /tmp/hare /opt/hare-cache
