# Of all the processors that QEMU can be, one is wanted.
find /usr/bin -name 'qemu-*' ! -name qemu-i386 -delete
rm -rf /usr/libexec/qemu-binfmt /usr/share/qemu

# A 32-bit program without PT_GNU_STACK may execute all memory that it may read, and assemblers write none unless they are told to.
# Linux does that by READ_IMPLIES_EXEC. QEMU goes by the flags of the segments, so they have to say it.
# Source: Linux, arch/x86/include/asm/elf.h, "elf_read_implies_exec".
cat > /usr/local/bin/read-implies-exec <<'END'
#!/usr/bin/perl
use strict;
open(my $file, '+<:raw', $ARGV[0]) or die "$ARGV[0]: $!\n";
read($file, my $header, 52) == 52 or die "$ARGV[0] is too short\n";
my $offset = unpack('V', substr($header, 28, 4));
my ($size, $count) = unpack('vv', substr($header, 42, 4));
my @readable;
for my $at (map { $offset + $_ * $size } 0 .. $count - 1) {
    seek($file, $at, 0);
    read($file, my $segment, 32) == 32 or die "$ARGV[0] is cut off\n";
    my ($type, $flags) = (unpack('V', $segment), unpack('V', substr($segment, 24, 4)));
    exit if $type == 0x6474e551;    # PT_GNU_STACK
    push @readable, [$at + 24, $flags] if $type == 1 && $flags & 4;    # PT_LOAD, PF_R
}
for my $segment (@readable) {
    seek($file, $segment->[0], 0);
    print $file pack('V', $segment->[1] | 1);    # PF_X
}
close($file) or die "$ARGV[0]: $!\n";
END
chmod 755 /usr/local/bin/read-implies-exec
