cat > /usr/local/bin/samarium <<'END'
#!/bin/sh
PYTHONPATH=/opt/samarium exec /usr/bin/python3 -P -m samarium "$@"
END
chmod 755 /usr/local/bin/samarium
/usr/bin/python3 -m compileall -q --invalidation-mode unchecked-hash /opt/samarium
