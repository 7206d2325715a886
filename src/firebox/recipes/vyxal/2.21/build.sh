# Only the flag ! needs it, and a JVM.
rm -f /opt/vyxal/vyxal/vyncode.jar
cat > /usr/local/bin/vyxal <<'END'
#!/bin/sh
if [ "$1" = --version ]; then
    exec sed -n 's/^Version: //p' /opt/vyxal/vyxal-*.dist-info/METADATA
fi
PYTHONPATH=/opt/vyxal exec /usr/bin/python3 -P -m vyxal "$@"
END
chmod 755 /usr/local/bin/vyxal
/usr/bin/python3 -m compileall -q --invalidation-mode unchecked-hash /opt/vyxal
