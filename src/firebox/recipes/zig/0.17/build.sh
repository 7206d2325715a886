ln -s /opt/ziglang/ziglang/zig /usr/local/bin/zig
