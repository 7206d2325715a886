# For jlink alone, which nothing here runs.
rm -rf /usr/lib/jvm/*/jmods
