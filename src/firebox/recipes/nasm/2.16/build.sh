# Of all the processors that QEMU can be, one is wanted.
find /usr/bin -name 'qemu-*' ! -name qemu-i386 -delete
rm -rf /usr/libexec/qemu-binfmt /usr/share/qemu
