chmod 755 /opt/typescript/bin/tsc
ln -s /opt/typescript/bin/tsc /usr/local/bin/tsc
# Only editors need it.
rm -f /opt/typescript/lib/tsserver.js /opt/typescript/lib/tsserverlibrary.js
