install -m 755 /opt/bun-linux-x64/bin/bun /usr/local/bin/bun
rm -rf /opt/bun-linux-x64
