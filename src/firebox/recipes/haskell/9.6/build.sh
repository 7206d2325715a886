# The compiler as a library, linked into a program: a quarter of the whole, and no program is a compiler.
find /usr/lib/ghc -name 'libHSghc-[0-9]*.a' -delete
