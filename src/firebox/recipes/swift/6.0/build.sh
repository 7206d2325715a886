# What compiling and running a program never touches is more than half of it: editors' and debuggers' servers, package tools,
# libraries for static linking, for chips and for other systems, and gcc's own compilers.
cd /usr/libexec/swift
rm -rf lib/swift/embedded lib/swift/FrameworkABIBaseline lib/swift_static share/docc lib/libLTO.so*
rm -f lib/liblldb* lib/libsourcekitdInProc.so lib/swift/host/lib_InternalSwiftScan.so
cd bin
rm -f lldb* clangd sourcekit-lsp docc swift-format swift-build-sdk-interfaces llvm-cov llvm-profdata
rm -f swift-package swift-build swift-run swift-test swift-sdk swift-experimental-sdk swift-package-collection swift-package-registry
rm -f /usr/bin/*lto-dump* /usr/libexec/gcc/*/*/lto1 /usr/libexec/gcc/*/*/cc1
# Modules of C headers are compiled when they are first imported, two seconds for Foundation's. What they were compiled into
# belongs to the place where it was made, so that is where programs get links to it.
cat > /usr/local/bin/swiftc <<'END'
#!/bin/sh
[ -e /tmp/swift ] || cp -rs /opt/swift-modules /tmp/swift 2>/dev/null
exec /usr/bin/swiftc "$@"
END
chmod 755 /usr/local/bin/swiftc
mkdir -p "$HOME"
cd "$HOME"
echo 'import Foundation
print(Date().timeIntervalSince1970 > 0)' > main.swift
/usr/bin/swiftc -module-cache-path /tmp/swift -o program main.swift
./program
mv /tmp/swift /opt/swift-modules
