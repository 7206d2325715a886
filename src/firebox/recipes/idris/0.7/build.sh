test -x /opt/idris2/bin/idris2
cat > /usr/local/bin/idris2 <<'END'
#!/bin/sh
export IDRIS2_PREFIX=/opt/idris2 CHEZ=/usr/bin/chezscheme
exec /opt/idris2/bin/idris2 "$@"
END
chmod 755 /usr/local/bin/idris2
