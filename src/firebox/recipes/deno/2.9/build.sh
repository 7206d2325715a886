install -m 755 /opt/deno/deno-*.data/scripts/deno /usr/local/bin/deno
rm -rf /opt/deno
