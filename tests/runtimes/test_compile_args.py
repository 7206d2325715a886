"""Arguments of compilers: what is allowed, and everything that must not be."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from firebox.engine.commands import check_compile_args, command_line
from firebox.errors import InvalidRequest
from firebox.model import Job
from firebox.runtimes.definition import Definition, shipped_definitions
from firebox.runtimes.runtime import Runtime

_WORDS = """
-fplugin=./x.so -fplugin-arg-x-y=1 -wrapper @args -specs=./s -specs --specs=./s -B. -B/tmp -I/usr/include -I.. -I../x
-Ia/../b -I -iquote/ -isystem/usr
-include -include/etc/passwd -imacros -x -xc -xnone -o -oa -obj -c -S -E -M -MMD -MF/tmp/x -Wl,-T,x -Wa,-I/ -Wp,-MD,x
-Xlinker -Xclang -Xassembler -Xpreprocessor
-load -mllvm -fpass-plugin=x -fuse-ld=/tmp/x -fuse-ld=gold --ld-path=/x -l:x.so -L/tmp -L. -T script -Tscript -dumpdir
-save-temps -fdump-tree-all=/tmp/x
-fprofile-use=/etc/passwd -fsanitize-blacklist=/etc/passwd -fdebug-prefix-map=a=b -ffile-prefix-map=a=b --sysroot=/
-idirafter/ -iprefix/ -no-canonical-prefixes
-resource-dir=/ -gcc-toolchain=/ --config=x -cc1 -### -v= -fmodule-file=x -fmodules-cache-path=x
-fcompilation-database=x -stdlib=/x -rpath=/x
-Clinker=/bin/sh -Clink-arg=x -Clink-args=x -Clinker-flavor=ld -Cincremental=/tmp -Cprofile-use=x -Car=x -C --extern=x
-L/x -Zunstable --out-dir=x --emit=asm --sysroot=x
-toolexec=/bin/sh -toolexec -overlay=x -modfile=x -exec=x -o=x -pkgdir=x -ldflags=-extld=/bin/sh
-ldflags=-linkmode=external -gcflags=-importcfg -asmflags=-I/ -C=/tmp -C/tmp -n
-ldflags=-X -extldflags=x -work -mod=mod -buildmode=plugin -ldflags=-X\tmain.a=b
-processorpath -processor -processorpath=x --processor-path=x -proc:full -cp -cp/ -classpath -d -d/tmp -s/tmp
-sourcepath -Xplugin:x -J-agentlib:x -J-javaagent:x -Xbootclasspath/p:x -h -A
--module-path=x --patch-module=x -XDx=y -implicit:none -Xmaxerrs
-pgmF=x -pgmF -F -optP-I/ -fllvm -package=x -package-db=x -odir/ -outputdir -dynload -fplugin-package=x -e
-ghci-script=x -optl-T
--passC:x --passL:x -p:/ --path:/ --import:/x --include:x --cincludes:x --nimcache:/x --clib:x --cc:x --gcc.exe:x -r
--run --out:x --outdir:x
-r:x -reference:x -lib:/ -pkg:x -res:x -resource:x -recurse:x -out:x -doc:x -keyfile:x -addmodule:x -main:x -a:x
-analyzer:x
-Fu/ -Fi/ -FE/ -Fl/ -FD/ -e/ -n @x -k-T -XP/x -Xr/x -al -B -Cp -vq -T -o/tmp
-import-objc-header -load-plugin-library -Xcc -Xllvm -Xfrontend -sdk -tools-directory -working-directory -use-ld=x
-module-cache-path -emit-library -I/tmp -swift-version
-femit-bin=x -lc:x --libc -cflags --zig-lib-dir -I -isystem -fsoname=x -target --cache-dir --mod -fPIC=x
-largs -bargs -cargs -gnatec=x -gnatem=x -gnateD=x -gnatG --RTS=/x -aI/ -aO/ -A/ -P -eS -f=x -gnateT=x
-J= -J/ -cpp=x -fintrinsic-modules-path=/ -Hf=x -Hd=x -Xf=x -Df=x -deps=x -conf=x -od=x -of=x -lib -run -linkonly
; $(x) `x` a.c /etc/passwd ../x main.c -- - =
"""
REFUSED = _WORDS.split()

ALLOWED = {
    ("c", "gcc"): "-O3 -Ofast -O -g -g3 -std=c11 -std=gnu++20 -Wall -Wextra -Werror=return-type -Wno-unused "
    "-Wframe-larger-than=99 -w -DX -DX=1 -DNAME=a,b -UX -fsanitize=address,undefined -fno-sanitize-recover "
    "-fwrapv -fno-omit-frame-pointer -march=native -mavx2 -mno-sse4.2 -lm -lgmp -Iinclude "
    "-I./a/b.d -pthread -static -s -pedantic-errors",
    ("c++", "gcc"): "-std=c++20 -fno-rtti -fconcepts -fconstexpr-depth=9999 -ftemplate-depth=100",
    ("rust", "rustc"): '-Copt-level=3 -Ctarget-cpu=native -g --cfg=feature="x" -Awarnings -Cpanic=abort',
    ("go", "go"): "-tags=x,y -trimpath -gcflags=all=-N",
    ("java", "javac"): "-Xlint:all -Xlint -parameters --release=17 -g:none",
    ("haskell", "ghc"): "-O2 -Wall -XGADTs -threaded",
    ("fortran", "gfortran"): "-O3 -ffree-form -fcheck=all -fdefault-real-8",
    ("nim", "nim"): "-d:release --mm:orc --opt:speed",
}

_LIBRARIES = ["-load", "-load-plugin-library", "-largs", "-lib", "-linkonly"]
HARMLESS = {
    **{language: [*_LIBRARIES, "-Df=x"] for language in ("c", "c++", "fortran")},
    "d": [*_LIBRARIES, "-d"],
    "pascal": ["-dumpdir", "-dynload"],
}
"""What another compiler would be dangerous with and this one takes for the name of a library or of a definition."""

WITH_ARGUMENTS = [definition for definition in shipped_definitions() if definition.compile_args]


of_each_compiler = pytest.mark.parametrize(
    "definition", WITH_ARGUMENTS, ids=lambda definition: f"{definition.language}-{definition.detect.programs[0]}"
)


def runtime_of(definition: Definition) -> Runtime:
    return Runtime(
        language=definition.language,
        version="1.0.0",
        main_name=definition.main_name,
        extensions=tuple(definition.extensions),
        compile=tuple(map(tuple, definition.compile)),
        compile_args=tuple(definition.compile_args),
        run=tuple(definition.run),
    )


@of_each_compiler
def test_attack_39_arguments_that_reach_further_are_refused_by_every_compiler(definition: Definition) -> None:
    runtime = runtime_of(definition)
    for word in REFUSED:
        if word in HARMLESS.get(definition.language, ()):
            continue
        with pytest.raises(InvalidRequest) as refused:
            runtime.check_compile_args((word,))
        assert refused.value.where == "compile_args[0]", word
    for word in ("", " ", "-O2\n", "-O2 -fplugin=x", "-DX=1\n-fplugin=x", "-DX=\0", "-W" + "a" * 600):
        with pytest.raises(InvalidRequest):
            runtime.check_compile_args((word,))


@of_each_compiler
def test_what_people_use_is_allowed_and_reaches_the_compiler(definition: Definition) -> None:
    words = tuple(ALLOWED.get((definition.language, definition.detect.programs[0]), "-O").split())
    if definition.language in ("go", "java", "csharp", "pascal", "zig", "rust", "nim") and words == ("-O",):
        words = {"csharp": ("-optimize",), "pascal": ("-O2",), "zig": ("-OReleaseFast",)}[definition.language]
    job = Job(language=definition.language, compile_args=words)
    check_compile_args(job, runtime_of(definition))
    line = " ".join(command_line("compile", job, runtime_of(definition), [definition.main_name], 0))
    assert all(word in line for word in words if '"' not in word)


def test_where_there_is_no_compiler_there_are_no_arguments() -> None:
    runtime = replace(runtime_of(WITH_ARGUMENTS[0]), compile=(), compile_args=())
    with pytest.raises(InvalidRequest, match="takes no arguments"):
        check_compile_args(Job(language="x", compile_args=("-O2",)), runtime)
    with pytest.raises(InvalidRequest, match="replaces the compiler"):
        check_compile_args(Job(language="x", command="true", compile_args=("-O2",)), runtime_of(WITH_ARGUMENTS[0]))
